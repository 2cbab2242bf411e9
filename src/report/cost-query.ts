// A question about cost, checked as a whole (range, step, grouping, filters), and which buckets of the ledger it is
// read from: days for whole days, hours for whole hours, minutes at the edges. HTTP and the command line parse single
// values and leave to this file what only their combination shows: reversed ranges, far too many steps, idle spread
// over minutes. The ledger knows whole minutes, so a range is widened to them; the answer states the widened range.

import { type BucketLevel, CELL_MS, DAY_MS, floorTo, LEVELS } from '../domain/ledger/buckets.ts'
import type { RowTotals } from '../domain/ledger/types.ts'

/** Lengths of a row in time; `all` is the whole range. */
export const STEPS = ['1m', '1h', '1d', 'all'] as const
export type Step = (typeof STEPS)[number]

/** What rows can be grouped by; `gpu` is a slot with its uuid. */
export const GROUPINGS = ['model', 'tenant', 'host', 'gpu', 'price_kind'] as const
export type Grouping = (typeof GROUPINGS)[number]

/** Where loaded idle without a model goes: into a row of its own, or to those who used the slot in that hour. */
export const IDLE_WAYS = ['own', 'spread'] as const
export type IdleWay = (typeof IDLE_WAYS)[number]

/** The most steps of an answer: a month of minutes, five years of hours. */
const MAX_STEPS = 44_640
/** Last instant of a range: the last that a Date can represent, which is a whole minute. */
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

/** A question as parsed: instants of any precision. */
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

/** Something wrong with a question: `field` is the parameter of HTTP and the flag of the command line. */
export interface QueryIssue {
  field: 'from' | 'to' | 'step' | 'by' | 'idle'
  message: string
}

/** Buckets of one level with a start in [fromMs, toMs). */
export interface PlannedRead {
  level: BucketLevel
  fromMs: number
  toMs: number
}

/** The checked question, or all issues found. */
export function costQuery(input: CostQueryInput): CostQuery | QueryIssue[] {
  const { step, idle, model, tenant, host } = input
  const fromMs = floorTo(CELL_MS, input.fromMs)
  const toMs = Math.min(LAST_INSTANT_MS, Math.ceil(input.toMs / CELL_MS) * CELL_MS)
  const issues: QueryIssue[] = []
  if (!(input.fromMs < input.toMs)) {
    const given = `${shown(input.toMs)} is not after from, which is ${shown(input.fromMs)}`
    issues.push({ field: 'to', message: `Is wrong: ${given}; expected a later instant` })
  } else if (countSteps(fromMs, toMs, step) > MAX_STEPS) {
    const found = `makes more than ${MAX_STEPS} rows in time of ${shown(fromMs)} to ${shown(toMs)}`
    issues.push({ field: 'step', message: `Is "${step}", which ${found}: expected ${longerSteps(fromMs, toMs)}` })
  }
  if (idle === 'spread' && step === '1m') {
    issues.push({ field: 'idle', message: 'Is "spread" with a step of 1m: expected own, or a step of 1h, 1d or all' })
  }
  if (issues.length > 0) return issues
  const by = GROUPINGS.filter((grouping) => input.by.includes(grouping))
  const filters = Object.entries({ model, tenant, host }).filter(([, value]) => value !== undefined)
  return Object.freeze({ fromMs, toMs, step, by, idle, ...Object.fromEntries(filters) })
}

/** Parses `model,tenant`; null when a word is no grouping or occurs twice. */
export function parseGroupings(text: string): Grouping[] | null {
  const words = text.split(',').map((word) => word.trim())
  const known = words.filter((word): word is Grouping => (GROUPINGS as readonly string[]).includes(word))
  return known.length === words.length && new Set(words).size === words.length ? known : null
}

/**
 * The reads that cover the range of a question, in order of time and without overlap. A bucket is never longer than the
 * step, so each lies in one step, and no longer than an hour where idle is spread over slot-hours. Hours and days are
 * sums of minutes: the totals are equal whichever are read, and the plan only decides how many rows that takes.
 */
export function planOf({
  fromMs,
  toMs,
  step,
  idle,
}: Pick<CostQuery, 'fromMs' | 'toMs' | 'step' | 'idle'>): PlannedRead[] {
  const longest = step === 'all' || step === 'month' ? 'day' : LEVEL_OF_STEP[step]
  return readsOf(longest === 'day' && idle === 'spread' ? 'hour' : longest, fromMs, toMs)
}

/** Whole buckets of a level, and shorter ones at both edges. */
function readsOf(level: BucketLevel, fromMs: number, toMs: number): PlannedRead[] {
  if (fromMs >= toMs) return []
  if (level === 'minute') return [{ level, fromMs, toMs }]
  const { lengthMs, sumOf } = LEVELS[level]
  const firstMs = Math.ceil(fromMs / lengthMs) * lengthMs
  const lastMs = floorTo(lengthMs, toMs)
  if (firstMs >= lastMs) return readsOf(sumOf, fromMs, toMs)
  return [...readsOf(sumOf, fromMs, firstMs), { level, fromMs: firstMs, toMs: lastMs }, ...readsOf(sumOf, lastMs, toMs)]
}

/**
 * Which totals of a bucket suffice for a question: by model where neither tenant nor GPU is asked for, by
 * tenant where neither model nor GPU is; null where only the rows themselves do.
 */
export function totalsFor({ by, model, tenant, idle }: CostQuery): keyof RowTotals | null {
  if (by.includes('gpu') || idle === 'spread') return null
  if (!by.includes('tenant') && tenant === undefined) return 'model'
  return by.includes('model') || model !== undefined ? null : 'tenant'
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
  if (step !== 'month') return floorTo(lengthOf(step), atMs)
  const at = new Date(atMs)
  return Date.UTC(at.getUTCFullYear(), at.getUTCMonth())
}

function unclippedEnd(step: CostQuery['step'], startMs: number): number {
  if (step === 'all') return Number.POSITIVE_INFINITY
  if (step !== 'month') return floorTo(lengthOf(step), startMs) + lengthOf(step)
  const start = new Date(startMs)
  return Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1)
}

const LEVEL_OF_STEP = { '1m': 'minute', '1h': 'hour', '1d': 'day' } as const

function lengthOf(step: keyof typeof LEVEL_OF_STEP): number {
  return LEVELS[LEVEL_OF_STEP[step]].lengthMs
}

function countSteps(fromMs: number, toMs: number, step: CostQuery['step']): number {
  if (step === 'all') return 1
  const lengthMs = step === 'month' ? 30 * DAY_MS : lengthOf(step)
  return Math.ceil(toMs / lengthMs) - Math.floor(fromMs / lengthMs)
}

function longerSteps(fromMs: number, toMs: number): string {
  const fitting = STEPS.filter((step) => countSteps(fromMs, toMs, step) <= MAX_STEPS)
  return `one of ${fitting.join(', ')}, or a shorter range`
}

function shown(ms: number): string {
  return Number.isNaN(ms) || Math.abs(ms) > LAST_INSTANT_MS ? String(ms) : new Date(ms).toISOString()
}
