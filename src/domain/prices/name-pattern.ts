// Patterns of GPU names in price rules: `*` stands for any text, all else for itself, capitals included. When several
// patterns match a name, the one that says more wins: more literal characters, then fewer stars, then the pattern's text,
// so that the answer never hangs on the order of rules. Matching is linear with one step back, never exponential.

export class NamePattern {
  /** The pattern with runs of stars made one: two rules with the same text have the same pattern. */
  readonly text: string
  readonly literalLength: number
  readonly #parts: readonly string[]

  constructor(pattern: string) {
    this.text = pattern.replace(/\*+/g, '*')
    this.#parts = this.text.split('*')
    this.literalLength = this.text.length - (this.#parts.length - 1)
  }

  /** Whether the whole name fits the pattern. */
  matches(name: string): boolean {
    const parts = this.#parts
    const first = parts[0]!
    if (parts.length === 1) return name === first
    const last = parts.at(-1)!
    if (name.length < first.length + last.length || !name.startsWith(first) || !name.endsWith(last)) return false
    let at = first.length
    const end = name.length - last.length
    for (const part of parts.slice(1, -1)) {
      // The leftmost place of each part is as good as any: what follows only has more room.
      const found = name.indexOf(part, at)
      if (found < 0 || found + part.length > end) return false
      at = found + part.length
    }
    return true
  }

  /** Negative when `a` goes before `b`, 0 only for equal patterns. */
  static compare(a: NamePattern, b: NamePattern): number {
    return (
      b.literalLength - a.literalLength ||
      a.#parts.length - b.#parts.length ||
      (a.text < b.text ? -1 : a.text > b.text ? 1 : 0)
    )
  }
}
