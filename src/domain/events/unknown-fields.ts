// Fields that the schema does not know are kept, if every store can keep them.

import { Rejection } from './rejection.ts'

/** Deepest nesting of an unknown field; MongoDB itself stops at 100. */
export const MAX_DEPTH = 32

/** Why a field that the schema does not know cannot be stored; null when it can. */
export function checkUnknown(name: string, value: unknown): Rejection | null {
  if (isForbidden(name)) {
    return Rejection.of(
      'forbidden_field',
      `Name ${JSON.stringify(name.slice(0, 80))} cannot be stored: rename the field`,
    )
  }
  return typeof value === 'object' && value !== null ? checkNested(name, value) : null
}

/** `__proto__` changes objects, `_bsontype` makes MongoDB's encoder take a plain object for something else. */
function isForbidden(name: string): boolean {
  return name === '__proto__' || name === '_bsontype' || name === '' || name.length > 256 || name.includes('\0')
}

function checkNested(field: string, root: object): Rejection | null {
  const open: { value: object; depth: number }[] = [{ value: root, depth: 1 }]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (node.depth > MAX_DEPTH) {
      return Rejection.of('too_deep', `Nests deeper than ${MAX_DEPTH} levels: flatten it`, `/${field.slice(0, 80)}`)
    }
    for (const [name, value] of Object.entries(node.value)) {
      if (isForbidden(name)) return checkUnknown(name, null)
      if (typeof value === 'object' && value !== null) open.push({ value, depth: node.depth + 1 })
    }
  }
  return null
}
