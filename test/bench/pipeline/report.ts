// The table of `make bench`: medians of the rounds, ours against the others, and the targets. A drain's targets are
// checked at their own size only; other sizes show ratios without verdicts.

import { tableOf } from '../table.ts'
import { CONTENDERS, type ContenderName } from './contenders.ts'
import type { Drain } from './drain.ts'
import { LATENCY_RATE, type Latency } from './latency.ts'
import { median } from './quantile.ts'

export interface Embedded {
  eventsPerSecond: number
  cpuSecondsPerMillion: number
  rssMb: number
}

export interface SizeResult {
  events: number
  drains: Record<ContenderName, Drain[]>
}

export interface Results {
  sizes: SizeResult[]
  latency: Latency | null
  embedded: Embedded[]
}

type Figure = 'eventsPerSecond' | 'cpuPerMillion' | 'mongodCpuPerMillion' | 'rssMb' | 'firstDocumentSeconds'

const FIGURES: Record<Figure, { title: string; digits: number; of: (drain: Drain) => number }> = {
  eventsPerSecond: { title: 'events/s', digits: 0, of: (drain) => drain.events / drain.seconds },
  cpuPerMillion: { title: 'CPU-s per million', digits: 2, of: (drain) => (drain.cpuSeconds / drain.events) * 1e6 },
  mongodCpuPerMillion: {
    title: "mongod's CPU-s per million",
    digits: 2,
    of: (drain) => (drain.mongodCpuSeconds / drain.events) * 1e6,
  },
  rssMb: { title: 'resident, peak, MB', digits: 0, of: (drain) => drain.rssMb },
  firstDocumentSeconds: {
    title: 'start-up to first document, s',
    digits: 2,
    of: (drain) => drain.firstDocumentSeconds,
  },
}

type Bounds = Partial<Record<Figure, number>>

/** Bounds of ours, and of ours as multiples of each other's. Throughput is to be at least as much, all else at most. */
const TARGETS: Record<number, { ours: Bounds; naive: Bounds; connect: Bounds }> = {
  200000: {
    ours: { firstDocumentSeconds: 1.2 },
    naive: { eventsPerSecond: 1.6, cpuPerMillion: 0.65 },
    connect: {},
  },
  1000000: {
    ours: { cpuPerMillion: 3.3, rssMb: 280, firstDocumentSeconds: 1.2 },
    naive: { eventsPerSecond: 1.45, cpuPerMillion: 0.75 },
    connect: { eventsPerSecond: 3, cpuPerMillion: 0.2 },
  },
}
const LATENCY_P99_MS = 250
const EMBEDDED = { eventsPerSecond: 80_000, rssMb: 350 }

export function reportOf({ sizes, latency, embedded }: Results): string {
  const rows: string[][] = []
  const head = (title: string) => [title, 'naive loop', 'Kafka Connect', 'pertoken', '/ naive loop', '/ Kafka Connect']
  for (const size of sizes) rows.push(head(titleOf(size)), ...rowsOf(size), [])
  for (const [i, larger] of sizes.slice(1).entries()) {
    const smaller = sizes[i]!
    rows.push(head(`from ${number(smaller.events)} to ${number(larger.events)}: warm`))
    rows.push(...furtherRows(smaller, larger), [])
  }
  if (latency !== null) {
    const { p50Ms, p99Ms } = latency
    rows.push([`event to document at ${number(LATENCY_RATE)}/s, p50, ms`, '', '', p50Ms.toFixed(0)])
    rows.push(['event to document, p99, ms', '', '', `${p99Ms.toFixed(0)}${verdict(p99Ms, LATENCY_P99_MS, 'most')}`])
  }
  if (embedded.length > 0) {
    const rate = median(embedded.map((round) => round.eventsPerSecond))
    const rssMb = median(embedded.map((round) => round.rssMb))
    const cpu = median(embedded.map((round) => round.cpuSecondsPerMillion))
    rows.push([`embedded, events/s`, '', '', `${number(rate)}${verdict(rate, EMBEDDED.eventsPerSecond, 'least')}`])
    rows.push(['embedded, CPU-s per million', '', '', cpu.toFixed(2)])
    rows.push(['embedded, resident, peak, MB', '', '', `${rssMb.toFixed(0)}${verdict(rssMb, EMBEDDED.rssMb, 'most')}`])
  }
  return tableOf(rows)
}

function titleOf({ events, drains }: SizeResult): string {
  const rounds = Math.max(...CONTENDERS.map((name) => drains[name].length))
  return `${number(events)} events, ${rounds === 1 ? '1 round' : `median of ${rounds}`}`
}

function rowsOf({ events, drains }: SizeResult): string[][] {
  return (Object.keys(FIGURES) as Figure[]).map((figure) => {
    const of = (name: ContenderName) => median(drains[name].map(FIGURES[figure].of))
    const targets = TARGETS[events]
    // Memory and start-up of another runtime are shown, not compared.
    const isCompared = figure !== 'rssMb' && figure !== 'firstDocumentSeconds'
    return rowOf(figure, { naive: of('naive'), connect: of('connect'), ours: of('ours') }, { targets, isCompared })
  })
}

/** What each further event costs, warm: the difference of two sizes. */
function furtherRows(smaller: SizeResult, larger: SizeResult): string[][] {
  const difference = (name: ContenderName, of: (drain: Drain) => number) =>
    median(larger.drains[name].map(of)) - median(smaller.drains[name].map(of))
  const events = (name: ContenderName) => difference(name, (drain) => drain.events)
  const values = (of: (name: ContenderName) => number) => ({
    naive: of('naive'),
    connect: of('connect'),
    ours: of('ours'),
  })
  const options = { targets: undefined, isCompared: true }
  return [
    rowOf(
      'eventsPerSecond',
      values((name) => events(name) / difference(name, (drain) => drain.seconds)),
      options,
    ),
    rowOf(
      'cpuPerMillion',
      values((name) => (difference(name, (drain) => drain.cpuSeconds) / events(name)) * 1e6),
      options,
    ),
  ]
}

function rowOf(
  figure: Figure,
  values: Record<ContenderName, number>,
  { targets, isCompared }: { targets: (typeof TARGETS)[number] | undefined; isCompared: boolean },
): string[] {
  const { title, digits } = FIGURES[figure]
  const direction = figure === 'eventsPerSecond' ? 'least' : 'most'
  const shown = (value: number) => (Number.isFinite(value) ? number(value, digits) : '')
  const against = (name: 'naive' | 'connect') => {
    const ratio = values.ours / values[name]
    if (!isCompared || !Number.isFinite(ratio)) return ''
    return `${ratio.toFixed(2)} ×${verdict(ratio, targets?.[name][figure], direction)}`
  }
  const ours = `${shown(values.ours)}${verdict(values.ours, targets?.ours[figure], direction)}`
  return [title, shown(values.naive), shown(values.connect), ours, against('naive'), against('connect')]
}

function verdict(value: number, bound: number | undefined, direction: 'least' | 'most'): string {
  if (bound === undefined || !Number.isFinite(value)) return ''
  const isReached = direction === 'least' ? value >= bound : value <= bound
  return ` (${direction === 'least' ? '≥' : '≤'} ${number(bound, bound % 1 === 0 ? 0 : 2)}: ${isReached ? 'reached' : 'MISSED'})`
}

function number(value: number, digits = 0): string {
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
