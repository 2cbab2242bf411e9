// Patterns of GPU names in price rules: `*` matches any text, all else itself, case-sensitive. When several patterns
// match a name, the most specific one wins: more literal characters, then fewer stars, then the pattern's text, so that
// the result never depends on the order of rules. Matching is linear with one step back, never exponential.

export class NamePattern {
  /** The pattern with runs of stars collapsed: two rules with the same text have the same pattern. */
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
      // The leftmost match of each part suffices: what follows only has more room.
      const found = name.indexOf(part, at)
      if (found < 0 || found + part.length > end) return false
      at = found + part.length
    }
    return true
  }

  /** Negative when `a` ranks before `b`, 0 only for equal patterns. */
  static compare(a: NamePattern, b: NamePattern): number {
    return (
      b.literalLength - a.literalLength ||
      a.#parts.length - b.#parts.length ||
      (a.text < b.text ? -1 : a.text > b.text ? 1 : 0)
    )
  }
}
