// Fields that the schema does not know are kept, if every store can keep them as they are. A JSON number becomes a
// double: an integer beyond 2⁵³ (ids of traces) would come out as another one, 1e400 as Infinity. An event with one is
// rejected by the field's name; only where there may be one its text is searched, once, so that the good path pays a
// comparison and a record full of large numbers no more than one reading of its text.

import { Rejection } from './rejection.ts'

/** The JSON that an event is in, as text or as UTF-8. */
export type Json = string | Buffer

/** Deepest nesting of an unknown field; MongoDB itself stops at 100. */
export const MAX_DEPTH = 32

/**
 * Integers that a JSON text holds and that JSON.parse makes others of, by what it makes; found at the first question.
 */
export class AlteredIntegers {
  readonly #json: Json | undefined
  #byValue: Map<number, string> | null = null

  /** Without a text every integer beyond 2⁵³ counts as altered. */
  constructor(json: Json | undefined) {
    this.#json = json
  }

  /** The integer that was read as `value` although it is another one; null when there is none. */
  of(value: number): string | null {
    if (this.#json === undefined) return String(value)
    this.#byValue ??= alteredIn(this.#json.toString())
    return this.#byValue.get(value) ?? null
  }
}

/** Why a field that the schema does not know cannot be stored; null when it can. */
export function checkUnknown(name: string, value: unknown, integers: AlteredIntegers): Rejection | null {
  if (isForbidden(name)) {
    return Rejection.of(
      'forbidden_field',
      `Name ${JSON.stringify(name.slice(0, 80))} cannot be stored: rename the field`,
    )
  }
  if (typeof value === 'number') return checkNumber(name, value, integers)
  return typeof value === 'object' && value !== null ? checkNested(name, value, integers) : null
}

/**
 * `__proto__` changes objects, `_bsontype` makes MongoDB's encoder take a plain object for something else, and
 * `pt_reach` is the store's own.
 */
const FORBIDDEN = ['__proto__', '_bsontype', 'pt_reach', '']

function isForbidden(name: string): boolean {
  return FORBIDDEN.includes(name) || name.length > 256 || name.includes('\0')
}

function checkNested(field: string, root: object, integers: AlteredIntegers): Rejection | null {
  const open: { value: object; depth: number }[] = [{ value: root, depth: 1 }]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (node.depth > MAX_DEPTH) {
      return Rejection.of('too_deep', `Nests deeper than ${MAX_DEPTH} levels: flatten it`, `/${field.slice(0, 80)}`)
    }
    for (const [name, value] of Object.entries(node.value)) {
      if (isForbidden(name)) return checkUnknown(name, null, integers)
      if (typeof value === 'object' && value !== null) open.push({ value, depth: node.depth + 1 })
      else if (typeof value === 'number') {
        const refusal = checkNumber(field, value, integers)
        if (refusal !== null) return refusal
      }
    }
  }
  return null
}

function checkNumber(field: string, value: number, integers: AlteredIntegers): Rejection | null {
  if (value <= Number.MAX_SAFE_INTEGER && value >= -Number.MAX_SAFE_INTEGER) return null
  const path = `/${field.slice(0, 80)}`
  if (!Number.isFinite(value)) {
    return Rejection.of('out_of_range', 'Is a number beyond 1.8e308, which cannot be kept: send it as text', path)
  }
  const written = integers.of(value)
  if (written === null) return null
  const message = `Is ${written.slice(0, 80)}: an integer beyond 2^53 cannot be kept exactly, send it as text`
  return Rejection.of('out_of_range', message, path)
}

function alteredIn(text: string): Map<number, string> {
  const found = new Map<number, string>()
  // Strings are matched to be passed over. A number with a fraction or exponent is a double by its own notation; more
  // than 309 digits are Infinity.
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/gs)) {
    if (!/^-?\d{16,309}$/.test(token)) continue
    const value = Number(token)
    if (Number.isFinite(value) && BigInt(token) !== BigInt(value)) found.set(value, token)
  }
  return found
}
