// The source text of each element of a JSON array. Events of an array go into the log as they were written, not as
// JSON.parse and JSON.stringify would write them again: that would turn 1e400 into null, cut large integers, and drop
// the first of two fields of one name before anybody can refuse it.

const QUOTE = 34
const BACKSLASH = 92

/** Texts of the elements of `text`, which must be valid JSON of an array. */
export function elementsOf(text: string): string[] {
  const elements: string[] = []
  let depth = 0
  let start = 0
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at)
    if (char === QUOTE) {
      at++
      while (text.charCodeAt(at) !== QUOTE) at += text.charCodeAt(at) === BACKSLASH ? 2 : 1
    } else if (char === 91 || char === 123) {
      depth++
      if (depth === 1) start = at + 1
    } else if (char === 93 || char === 125) {
      depth--
      if (depth === 0) addElement(elements, text.slice(start, at))
    } else if (char === 44 && depth === 1) {
      addElement(elements, text.slice(start, at))
      start = at + 1
    }
  }
  return elements
}

/** Only an empty array has a blank element. */
function addElement(elements: string[], text: string): void {
  const element = text.trim()
  if (element !== '') elements.push(element)
}
