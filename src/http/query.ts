// Query parameters: each route declares its own once, which gives the parser, the type and the OpenAPI schema. Values
// are plain text: no coercion, no nesting, no lists. Parameters that are unknown, repeated or wrong result in one 400
// that names all of them and what is allowed, so that a misspelt filter never silently returns more than was requested.

import { parseIsoMs } from '../domain/events/timestamp.ts'
import { HttpProblem, type ProblemIssue } from './problem.ts'

/** One kind of value: how to read it from text (undefined: invalid), and how to describe it. */
export interface ValueKind<T> {
  read(text: string): T | undefined
  /** What is allowed, in error texts. */
  allowed: string
  schema: Readonly<Record<string, unknown>>
}

/** A parameter: its kind, and its value when absent. */
interface Parameter<T> {
  kind: ValueKind<unknown>
  required: boolean
  fallback: T | undefined
}

type Parsed<S> = { [K in keyof S]: S[K] extends Parameter<infer T> ? T : never }

const LAST_INSTANT_MS = 8.64e15

/** The query parameters of one route. */
export class Query<S extends Record<string, Parameter<unknown>>> {
  readonly #parameters: S

  constructor(parameters: S) {
    this.#parameters = parameters
  }

  /** JSON Schema for OpenAPI. */
  get schema(): Record<string, unknown> {
    const all = Object.entries(this.#parameters)
    return {
      type: 'object',
      properties: Object.fromEntries(
        all.map(([name, { kind, fallback }]) => [
          name,
          fallback === undefined ? kind.schema : { ...kind.schema, default: fallback },
        ]),
      ),
      required: all.filter(([, { required }]) => required).map(([name]) => name),
      additionalProperties: false,
    }
  }

  /** Reads the values; throws an HttpProblem that lists every issue. */
  parse(raw: unknown): Parsed<S> {
    const given = raw as Record<string, string | string[]>
    const errors: ProblemIssue[] = []
    for (const name of Object.keys(given)) {
      if (!Object.hasOwn(this.#parameters, name)) errors.push(this.#unknown(name))
    }
    const values: Record<string, unknown> = {}
    for (const [name, parameter] of Object.entries(this.#parameters)) {
      const value = Object.hasOwn(given, name) ? given[name] : undefined
      const read = value === undefined ? parameter.fallback : readOne(value, parameter.kind)
      if (read !== undefined) values[name] = read
      else if (value !== undefined || parameter.required) errors.push(wrong(name, value, parameter.kind))
    }
    if (errors.length > 0) throw badParameters(errors)
    return values as Parsed<S>
  }

  #unknown(name: string): ProblemIssue {
    const names = Object.keys(this.#parameters)
    const allowed = names.length === 0 ? 'none is allowed here' : `allowed are ${names.join(', ')}`
    return { path: shorten(name), reason: 'unknown_parameter', message: `Is not a parameter: ${allowed}` }
  }
}

/** The query of routes without parameters. */
export const NO_QUERY = new Query({})

export function optional<T>(kind: ValueKind<T>): Parameter<T | undefined> {
  return { kind, required: false, fallback: undefined }
}

export function required<T>(kind: ValueKind<T>): Parameter<T> {
  return { kind, required: true, fallback: undefined }
}

export function withDefault<T>(kind: ValueKind<T>, fallback: T): Parameter<T> {
  return { kind, required: false, fallback }
}

export function integer(min: number, max: number, description: string): ValueKind<number> {
  return {
    read: (text) => {
      if (!/^\d{1,15}$/.test(text)) return undefined
      const value = Number(text)
      return value >= min && value <= max ? value : undefined
    },
    allowed: `an integer from ${min} to ${max}`,
    schema: { type: 'integer', minimum: min, maximum: max, description },
  }
}

export function text(maxLength: number, description: string): ValueKind<string> {
  return {
    read: (value) => (value.length >= 1 && value.length <= maxLength && !value.includes('\0') ? value : undefined),
    allowed: `text of 1 to ${maxLength} characters`,
    schema: { type: 'string', minLength: 1, maxLength, description },
  }
}

/** An instant, as epoch milliseconds. */
export function instant(description: string): ValueKind<number> {
  return {
    read: (value) => {
      const ms = /^\d{1,16}$/.test(value) ? Number(value) : parseIsoMs(value)
      return Number.isNaN(ms) || ms > LAST_INSTANT_MS ? undefined : ms
    },
    allowed: 'ISO 8601 such as 2026-11-22T10:00:00Z (a + in it is written %2B) or epoch milliseconds',
    schema: { type: 'string', description: `${description}: ISO 8601 (without zone: UTC) or epoch milliseconds` },
  }
}

export function choice<const T extends string>(values: readonly T[], description: string): ValueKind<T> {
  return {
    read: (value) => values.find((known) => known === value),
    allowed: `one of ${values.join(', ')}`,
    schema: { type: 'string', enum: values, description },
  }
}

/** An object without its undefined fields: the ports' optional fields may be absent, but not undefined. */
export function defined<T extends object>(from: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(from).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>
  }
}

export function badParameters(errors: readonly ProblemIssue[]): HttpProblem {
  const names = errors.map(({ path }) => path).join(', ')
  return new HttpProblem(400, 'bad-parameter', {
    detail: `Cannot use ${names}: see errors for what is allowed`,
    errors,
  })
}

function readOne<T>(value: string | string[], kind: ValueKind<T>): T | undefined {
  return typeof value === 'string' ? kind.read(value) : undefined
}

function wrong(path: string, value: string | string[] | undefined, { allowed }: ValueKind<unknown>): ProblemIssue {
  if (value === undefined) return { path, reason: 'missing_parameter', message: `Is missing: expected ${allowed}` }
  if (typeof value === 'string') {
    return { path, reason: 'wrong_value', message: `Is ${JSON.stringify(shorten(value))}: expected ${allowed}` }
  }
  return { path, reason: 'repeated_parameter', message: `Is given ${value.length} times: expected once, ${allowed}` }
}

function shorten(value: string): string {
  return value.length > 80 ? `${value.slice(0, 80)}…` : value
}
