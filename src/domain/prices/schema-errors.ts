// Walks a value along a TypeBox schema and reports every place where they differ, in words for people: what was found
// and what is allowed. A validator's own messages stop early and, in unions, complain about each branch; here the
// branch of a union of objects is chosen by its `kind`, or by its fields where the kind is wrong, so that a slip in one
// field is one message and hides no other. Knows only what our schemas use.

/** One thing that is wrong. */
export interface Problem {
  /** JSON pointer into the value; '' for all of it. */
  path: string
  /** Line in the text that it was read from, null where it is not known. */
  line: number | null
  /** Last part of the path. */
  field: string
  /** What was found, as text. */
  value: string
  /** What is allowed. */
  expected: string
}

/** What is read of a schema. */
interface Walkable {
  type?: string
  const?: unknown
  properties?: Record<string, Walkable>
  required?: string[]
  items?: Walkable
  anyOf?: Walkable[]
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  minProperties?: number
  /** What is allowed, in the schema's own words. */
  expected?: string
}

const MAX_SHOWN_LENGTH = 80

/**
 * A problem at a JSON pointer: what was found there and what is allowed; its line is filled in by who knows the text.
 */
export function problem(path: string, value: unknown, expected: string): Problem {
  return { path, line: null, field: path.slice(path.lastIndexOf('/') + 1), value: show(value), expected }
}

/** All problems of a value of any kind; empty exactly when the schema's validator takes it. */
export function checkValue(schema: object, value: unknown, path: string): Problem[] {
  return walk(schema as Walkable, value, path)
}

function walk(schema: Walkable, value: unknown, path: string): Problem[] {
  if (schema.anyOf !== undefined) return walkUnion(schema.anyOf, value, path)
  if (schema.type === 'object') return walkObject(schema, value, path)
  if (schema.type === 'array') return walkArray(schema, value, path)
  return isLeaf(schema, value) ? [] : [problem(path, value, allowed(schema))]
}

function walkUnion(branches: Walkable[], value: unknown, path: string): Problem[] {
  if (branches[0]!.type !== 'object') {
    const fits = branches.some((branch) => isLeaf(branch, value))
    return fits ? [] : [problem(path, value, `one of: ${branches.map(allowed).join(', ')}`)]
  }
  if (!isObject(value)) return [problem(path, value, 'an object')]
  const kindOf = (branch: Walkable) => branch.properties!['kind']!
  const chosen = branches.find((branch) => walk(kindOf(branch), value['kind'], '').length === 0)
  if (chosen !== undefined) return walkObject(chosen, value, path)
  const kinds = branches.flatMap((branch) => kindOf(branch).anyOf ?? [kindOf(branch)])
  const wrongKind = problem(`${path}/kind`, value['kind'], `one of: ${kinds.map(allowed).join(', ')}`)
  const others = walkLikely(branches, value, path).filter((found) => found.path !== wrongKind.path)
  return [wrongKind, ...others]
}

/** Problems by the branch that has most of the value's fields; of several such, those that all of them have. */
function walkLikely(branches: Walkable[], value: Record<string, unknown>, path: string): Problem[] {
  const names = Object.keys(value)
  const scores = branches.map(({ properties }) => names.filter((name) => Object.hasOwn(properties!, name)).length)
  const likely = branches.filter((_, i) => scores[i] === Math.max(...scores))
  const [first, ...more] = likely.map((branch) => walkObject(branch, value, path))
  return first!.filter((found) => more.every((problems) => problems.some((other) => other.path === found.path)))
}

function walkObject(schema: Walkable, value: unknown, path: string): Problem[] {
  if (!isObject(value)) return [problem(path, value, 'an object')]
  const properties = schema.properties!
  const names = Object.keys(properties)
  const found: Problem[] = []
  if (Object.keys(value).length < (schema.minProperties ?? 0)) {
    found.push(problem(path, value, `at least ${schema.minProperties} of: ${names.join(', ')}`))
  }
  for (const name of Object.keys(value)) {
    const at = `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
    if (!Object.hasOwn(properties, name)) {
      found.push(problem(at, value[name], `no such field; there are: ${names.join(', ')}`))
    } else if (value[name] !== undefined) found.push(...walk(properties[name]!, value[name], at))
  }
  for (const name of schema.required ?? []) {
    if (value[name] !== undefined) continue
    const child = properties[name]!
    found.push(problem(`${path}/${name}`, undefined, allowed(child)))
  }
  return found
}

function walkArray(schema: Walkable, value: unknown, path: string): Problem[] {
  if (!Array.isArray(value)) return [problem(path, value, 'a list')]
  const { minItems = 0, maxItems = Number.POSITIVE_INFINITY } = schema
  // A list that is far too long is not walked: its problems would be as many.
  if (value.length < minItems || value.length > maxItems) {
    return [problem(path, `a list of ${value.length}`, `${minItems} to ${maxItems} entries`)]
  }
  return value.flatMap((item, i) => walk(schema.items!, item, `${path}/${i}`))
}

function isLeaf(schema: Walkable, value: unknown): boolean {
  if (schema.const !== undefined) return value === schema.const
  switch (schema.type) {
    case 'null':
      return value === null
    case 'string':
      return typeof value === 'string' && isWithin(value.length, schema.minLength, schema.maxLength)
    case 'integer':
      return Number.isInteger(value) && isWithin(value as number, schema.minimum, schema.maximum)
    case 'number':
      return Number.isFinite(value) && isWithin(value as number, schema.minimum, schema.maximum)
    default:
      throw new TypeError(`Cannot walk a schema of type ${schema.type}: it is not one of ours`)
  }
}

function isWithin(value: number, minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY): boolean {
  return value >= minimum && value <= maximum
}

function allowed(schema: Walkable): string {
  if (schema.expected !== undefined) return schema.expected
  if (schema.const !== undefined) return String(schema.const)
  if (schema.anyOf !== undefined) {
    const isObjects = schema.anyOf[0]!.type === 'object'
    return isObjects ? 'an object' : `one of: ${schema.anyOf.map(allowed).join(', ')}`
  }
  switch (schema.type) {
    case 'object':
      return `an object with ${Object.keys(schema.properties!).join(', ')}`
    case 'array':
      return 'a list'
    case 'string':
      return `text of ${schema.minLength} to ${schema.maxLength} characters`
    case 'integer':
      return `a whole number from ${schema.minimum} to ${schema.maximum}`
    case 'number':
      return `a number from ${schema.minimum} to ${schema.maximum}`
    default:
      return String(schema.type)
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function show(value: unknown): string {
  if (value === undefined) return 'missing'
  // JSON would show NaN and ∞ as null.
  const text = typeof value === 'number' ? String(value) : jsonOf(value)
  return text.length > MAX_SHOWN_LENGTH ? `${text.slice(0, MAX_SHOWN_LENGTH)}…` : text
}

function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    // A value that holds itself, as YAML can write it.
    return 'a value that holds itself'
  }
}
