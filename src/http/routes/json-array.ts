// The source bytes of each element of a JSON array. Events of an array go into the log as received, not re-encoded by
// JSON.parse and JSON.stringify: that would turn 1e400 into null, round large integers, and drop the first of two
// fields of the same name before it can be rejected. Bytes, not text: the delimiters are ASCII and never part of
// another character in UTF-8, so an element is a slice without a copy.

const QUOTE = 34
const COMMA = 44
const BACKSLASH = 92

/** Slices of `json`, which must be a valid JSON array in UTF-8: one for each element, without space around it. */
export function elementsOf(json: Buffer): Buffer[] {
  const elements: Buffer[] = []
  let depth = 0
  let start = 0
  for (let at = 0; at < json.length; at++) {
    const byte = json[at]!
    if (byte === QUOTE) {
      at++
      while (json[at] !== QUOTE) at += json[at] === BACKSLASH ? 2 : 1
    } else if (byte === 91 || byte === 123) {
      depth++
      if (depth === 1) start = at + 1
    } else if (byte === 93 || byte === 125) {
      depth--
      if (depth === 0) addElement(elements, json, start, at)
    } else if (byte === COMMA && depth === 1) {
      addElement(elements, json, start, at)
      start = at + 1
    }
  }
  return elements
}

/** Adds the bytes between `start` and `end` without the space around them; only an empty array has none. */
function addElement(elements: Buffer[], json: Buffer, start: number, end: number): void {
  let from = start
  let to = end
  while (from < to && json[from]! <= 32) from++
  while (to > from && json[to - 1]! <= 32) to--
  if (from < to) elements.push(json.subarray(from, to))
}
