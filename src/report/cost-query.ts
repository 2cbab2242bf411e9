// A question about cost, checked as a whole: which range, in which steps, grouped by what, of whom. HTTP and the command
// line read their own words and come here for what single words cannot tell (reversed ranges, far too many steps, idle
// spread over minutes). The ledger knows whole minutes, so that a range is widened to them; the answer says which it was.

import { CELL_MS, DAY_MS, floorTo, HOUR_MS } from '../domain/ledger/buckets.ts'

/** Lengths of a row in time; `all` is the whole range. */
export const STEPS = ['1m', '1h', '1d', 'all'] as const
export type Step = (typeof STEPS)[number]

/** What rows can be grouped by; `gpu` is a slot with its uuid. */
export const GROUPINGS = ['model', 'tenant', 'host', 'gpu', 'price_kind'] as const
export type Grouping = (typeof GROUPINGS)[number]

/** Who gets the loaded idle of nobody: a row of its own, or those who used the slot in that hour. */
export const IDLE_WAYS = ['own', 'spread'] as const
export type IdleWay = (typeof IDLE_WAYS)[number]

/** The most steps of an answer: a month of minutes, five years of hours. */
export const MAX_STEPS = 44_640
/** Last instant of a range: the last that a Date can say, which is a whole minute. */
const LAST_INSTANT_MS = 8.64e15

export interface CostQuery {
  /** Whole minutes, epoch milliseconds; `toMs` is exclusive. */
  readonly fromMs: number
  readonly toMs: number
  /** `month` (UTC) is for FOCUS, whose charges lie in one billing period. */
  readonly step: Step | 'month'
  /** In the order of GROUPINGS, each once. */
  readonly by: readonly Grouping[]
  readonly model?: string
  readonly tenant?: string
  readonly host?: string
  readonly idle: IdleWay
}

/** What a face hands in: instants of any precision, the rest as it was read. */
export interface CostQueryInput {
  fromMs: number
  toMs: number
  step: Step | 'month'
  by: readonly Grouping[]
  idle: IdleWay
  model?: string | undefined
  tenant?: string | undefined
  host?: string | undefined
}

/** Something wrong with a question: `field` as the faces call it. */
export interface QueryProblem {
  field: 'from' | 'to' | 'step' | 'by' | 'idle'
  message: string
}

/** The checked question, or all that is wrong with it. */
export function costQuery(input: CostQueryInput): CostQuery | QueryProblem[] {
  const { step, idle, model, tenant, host } = input
  const fromMs = floorTo(CELL_MS, input.fromMs)
  const toMs = Math.min(LAST_INSTANT_MS, Math.ceil(input.toMs / CELL_MS) * CELL_MS)
  const problems: QueryProblem[] = []
  if (!(input.fromMs < input.toMs)) {
    const given = `${shown(input.toMs)} is not after from, which is ${shown(input.fromMs)}`
    problems.push({ field: 'to', message: `Is wrong: ${given}; expected a later instant` })
  } else if (countSteps(fromMs, toMs, step) > MAX_STEPS) {
    const found = `makes more than ${MAX_STEPS} rows in time of ${shown(fromMs)} to ${shown(toMs)}`
    problems.push({ field: 'step', message: `Is "${step}", which ${found}: expected ${longerSteps(fromMs, toMs)}` })
  }
  if (idle === 'spread' && step === '1m') {
    problems.push({ field: 'idle', message: 'Is "spread" with a step of 1m: expected own, or a step of 1h, 1d or all' })
  }
  if (problems.length > 0) return problems
  const by = GROUPINGS.filter((grouping) => input.by.includes(grouping))
  const filters = Object.entries({ model, tenant, host }).filter(([, value]) => value !== undefined)
  return Object.freeze({ fromMs, toMs, step, by, idle, ...Object.fromEntries(filters) })
}

/** Reads `model,tenant`; null when a word is no grouping or is there twice. */
export function parseGroupings(text: string): Grouping[] | null {
  const words = text.split(',').map((word) => word.trim())
  const known = words.filter((word): word is Grouping => (GROUPINGS as readonly string[]).includes(word))
  return known.length === words.length && new Set(words).size === words.length ? known : null
}

/** Start of the step that an instant lies in, epoch milliseconds, not before the range. */
export function stepStart(query: Pick<CostQuery, 'fromMs' | 'step'>, atMs: number): number {
  return Math.max(query.fromMs, unclippedStart(query.step, atMs))
}

/** End of the step that begins at `startMs`, not after the range. */
export function stepEnd(query: Pick<CostQuery, 'toMs' | 'step'>, startMs: number): number {
  return Math.min(query.toMs, unclippedEnd(query.step, startMs))
}

function unclippedStart(step: CostQuery['step'], atMs: number): number {
  if (step === 'all') return Number.NEGATIVE_INFINITY
  if (step !== 'month') return floorTo(LENGTH_MS[step], atMs)
  const at = new Date(atMs)
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth())
}

function unclippedEnd(step: CostQuery['step'], startMs: number): number {
  if (step === 'all') return Number.POSITIVE_INFINITY
  if (step !== 'month') return floorTo(LENGTH_MS[step], startMs) + LENGTH_MS[step]
  const start = new Date(startMs)
  return Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1)
}

const LENGTH_MS = { '1m': CELL_MS, '1h': HOUR_MS, '1d': DAY_MS } as const

function countSteps(fromMs: number, toMs: number, step: CostQuery['step']): number {
  if (step === 'all') return 1
  const lengthMs = step === 'month' ? 30 * DAY_MS : LENGTH_MS[step]
  return Math.ceil(toMs / lengthMs) - Math.floor(fromMs / lengthMs)
}

function longerSteps(fromMs: number, toMs: number): string {
  const fitting = STEPS.filter((step) => countSteps(fromMs, toMs, step) <= MAX_STEPS)
  return `one of ${fitting.join(', ')}, or a shorter range`
}

function shown(ms: number): string {
  return Number.isNaN(ms) || Math.abs(ms) > LAST_INSTANT_MS ? String(ms) : new Date(ms).toISOString()
}
