// Detects an object whose text names a field twice. JSON.parse silently keeps the last one, so that two readers of the
// same bytes could count different tokens; RFC 8259 section 4 calls such names unpredictable. The check must cost next
// to nothing on the good path: a flat object has exactly two quotes per name and per string value, so counting quotes
// decides it; only text with escapes, nesting or a surplus is checked name by name.

const QUOTE = 34
const utf8 = new TextDecoder()

/**
 * Whether the top level of a JSON text names a field twice: `bytes` is the text as UTF-8, of which JSON.parse made
 * `event`.
 */
export function hasDuplicateKey(bytes: Uint8Array, event: Record<string, unknown>): boolean {
  let expected = 0
  for (const name in event) {
    expected += typeof event[name] === 'string' ? 4 : 2
  }
  let quotes = 0
  // Over the bytes: twice as fast as over the string.
  for (let at = 0; at < bytes.length; at++) if (bytes[at] === QUOTE) quotes++
  return quotes !== expected && repeatsName(utf8.decode(bytes))
}

/** Walks valid JSON text of an object and compares the names of its top level. */
function repeatsName(text: string): boolean {
  const seen = new Set<string>()
  let depth = 0
  let expectName = false
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at)
    if (char === QUOTE) {
      const end = endOfString(text, at)
      if (depth === 1 && expectName) {
        const name = JSON.parse(text.slice(at, end + 1)) as string
        if (seen.has(name)) return true
        seen.add(name)
        expectName = false
      }
      at = end
    } else if (char === 123 || char === 91) {
      depth++
      if (depth === 1) expectName = true
    } else if (char === 125 || char === 93) {
      depth--
    } else if (char === 44 && depth === 1) {
      expectName = true
    }
  }
  return false
}

function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text.charCodeAt(at) !== QUOTE) at += text.charCodeAt(at) === 92 ? 2 : 1
  return at
}
