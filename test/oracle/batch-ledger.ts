// The ledger as an obvious batch computation over all raw events, to compare the real one with. It is independent of
// src/ (nothing of it is imported), slow and plain: each event's tokens are spread one by one, time is cut at every
// instant at which anything changes, and for each elementary interval the two samples around it and the effective rule
// are looked up on their own. Amounts stay fractions (integer numerators over one denominator) until the one rounding
// that docs/cost-model.md allows. When this and src/domain/ledger/cell.ts disagree, one of them has misread the rules.

import {
  type CellOptions,
  DENOMINATOR,
  type Interval,
  intervalsOf,
  MINUTE,
  nano,
  type OracleBook,
  type OracleSample,
  roundHalfUp,
} from './batch-intervals.ts'

export interface OracleUsage {
  ts: Date
  host: string | null
  gpu_index?: number
  gpus?: number[]
  model: string
  tenant?: string
  prompt_tokens: number
  completion_tokens: number
  cached_prompt_tokens?: number
  requests?: number
  interval_s?: number
}

/** A row as plain data: `start` and `host` name its cell. */
export interface OracleRow {
  start: number
  host: string | null
  gpu_index: number
  gpu_uuid: string | null
  gpu_name: string | null
  model: string | null
  tenant: string | null
  price_kind: string
  requests: bigint
  prompt_tokens: bigint
  cached_prompt_tokens: bigint
  completion_tokens: bigint
  measured_tokens: bigint
  covered_ms: bigint
  presence_ms: bigint
  assumed_ms: bigint
  uncovered_ms: bigint
  busy_nano_usd: bigint
  loaded_idle_nano_usd: bigint
  unallocated_nano_usd: bigint
  assumed_nano_usd: bigint
  uncovered_nano_usd: bigint
  input_nano_usd: bigint
  cached_nano_usd: bigint
  output_nano_usd: bigint
  energy_mj: bigint | null
  basis: string
  method: string
}

interface Usage {
  model: string
  tenant: string | null
  requests: bigint
  uncached: bigint
  cached: bigint
  output: bigint
  allRequests: bigint
  events: bigint
}

/** All rows of all cells whose minute starts in [fromMs, toMs); both whole minutes. */
export function batchLedger(
  sent: OracleSample[],
  sentUsages: OracleUsage[],
  options: { book: OracleBook; fromMs: number; toMs: number },
): OracleRow[] {
  // Joined names: as if every event and every rule had come with the one name of its host.
  const nameOf = (host: string) => options.book.hosts?.[host] ?? host
  const named = <T extends { host?: string | null }>(one: T): T =>
    typeof one.host === 'string' ? { ...one, host: nameOf(one.host) } : one
  const samples = sent.map(named)
  const usages = sentUsages.map(named)
  const book = { ...options.book, rules: options.book.rules.map((rule) => ({ ...rule, match: named(rule.match) })) }
  const rows: OracleRow[] = []
  const hosts = new Set<string | null>([...samples, ...usages].map((event) => event.host))
  for (const rule of book.rules) if (rule.match.host !== undefined) hosts.add(rule.match.host)
  for (let start = options.fromMs; start < options.toMs; start += MINUTE) {
    for (const host of hosts) {
      const events = usages.filter((usage) => usage.host === host).flatMap((usage) => madeIn(usage, start) ?? [])
      rows.push(
        ...cellRows(
          samples.filter((sample) => sample.host === host),
          events,
          { book, start, host },
        ),
      )
    }
  }
  return rows
}

/**
 * What an event counts in a minute, as an event of it; null for nothing. The n-th of N tokens is made when n/N of the
 * interval have passed, and one that is made at the very end of a minute belongs to it.
 */
function madeIn(event: OracleUsage, start: number): OracleUsage | null {
  const end = event.ts.getTime()
  const length = Math.round((event.interval_s ?? 0) * 1000)
  if (length === 0) return end >= start && end < start + MINUTE ? event : null
  const begin = end - length
  if (end <= start || begin >= start + MINUTE) return null
  const until = (count: number, at: number) =>
    at <= begin ? 0n : (BigInt(count) * BigInt(Math.min(at, end) - begin)) / BigInt(length)
  const made = (count: number) => Number(until(count, start + MINUTE) - until(count, start))
  const cached = event.cached_prompt_tokens ?? 0
  const part = {
    ...event,
    prompt_tokens: made(event.prompt_tokens - cached) + made(cached),
    cached_prompt_tokens: made(cached),
    completion_tokens: made(event.completion_tokens),
    requests: made(event.requests ?? 1),
  }
  return part.prompt_tokens + part.completion_tokens + part.requests === 0 ? null : part
}

function cellRows(samples: OracleSample[], events: OracleUsage[], options: CellOptions): OracleRow[] {
  const { book, start, host } = options
  const indexes = new Set(samples.map((sample) => sample.gpu_index))
  for (const event of events) for (const index of gpusOf(event)) indexes.add(index)
  for (const rule of book.rules) {
    if (rule.match.host === host && host !== null && rule.match.gpu_index !== undefined)
      indexes.add(rule.match.gpu_index)
  }
  const active = activeEvents(events)
  const used = new Set(active.flatMap(gpusOf))
  const slots = [...indexes].map((index) => ({ index, own: dedupe(samples.filter((s) => s.gpu_index === index)) }))
  const loaded: string[] = []
  for (const { index, own } of slots) {
    if (used.has(index)) continue
    for (const interval of intervalsOf(own, index, options).covered)
      if (interval.model !== null) loaded.push(interval.model)
  }
  const tokens = (event: OracleUsage) => event.prompt_tokens + event.completion_tokens
  const models = keep(
    [...loaded.map((name) => ({ name, n: 0 })), ...active.map((e) => ({ name: e.model, n: tokens(e) }))],
    book.maxModels,
  )
  const tenants = keep(
    active.flatMap((e) => (e.tenant === undefined ? [] : [{ name: e.tenant, n: tokens(e) }])),
    book.maxTenants,
  )
  return slots.flatMap(({ index, own }) => {
    const { covered, gaps, uuid, name } = intervalsOf(own, index, options)
    const empty = (model: string | null, tenant: string | null, kind: string) =>
      emptyRow({ start, host, gpu_index: index, gpu_uuid: uuid, gpu_name: name, model, tenant, price_kind: kind })
    const mine = active.filter((event) => gpusOf(event).includes(index))
    const rows =
      mine.length > 0
        ? rowsWithTokens([...covered, ...gaps.map((d) => d.interval)], sumUsage(mine, index, { models, tenants }), {
            book,
            empty,
          })
        : rowsWithoutTokens(
            covered.map((interval) => ({
              ...interval,
              model: interval.model === null ? null : models(interval.model),
            })),
            gaps,
            empty,
          )
    return rows.filter((row) => Object.values(row).some((value) => typeof value === 'bigint' && value > 0n))
  })
}

/** Events that used something: no tokens and no requests at all is as good as no event. */
function activeEvents(events: OracleUsage[]): OracleUsage[] {
  return events.filter((event) => event.prompt_tokens + event.completion_tokens + (event.requests ?? 1) > 0)
}

function gpusOf(event: OracleUsage): number[] {
  return event.gpus === undefined ? [event.gpu_index!] : [...event.gpus].sort((a, b) => a - b)
}

function dedupe(samples: OracleSample[]): OracleSample[] {
  const best = new Map<number, OracleSample>()
  for (const sample of samples) {
    const other = best.get(sample.ts.getTime())
    if (other === undefined || sample._id < other._id) best.set(sample.ts.getTime(), sample)
  }
  return [...best.values()].sort((a, b) => a.ts.getTime() - b.ts.getTime())
}

/** `names` → the name it goes by: the `limit` names with the most tokens stay, ties by name. */
function keep(names: { name: string; n: number }[], limit: number): (name: string) => string {
  const distinct = [...new Set(names.map((entry) => entry.name))]
  const total = (name: string) => names.filter((entry) => entry.name === name).reduce((sum, entry) => sum + entry.n, 0)
  const kept = distinct.sort((a, b) => total(b) - total(a) || (a < b ? -1 : 1)).slice(0, limit)
  return (name) => (kept.includes(name) ? name : 'other')
}

function sumUsage(
  events: OracleUsage[],
  index: number,
  names: { models: (name: string) => string; tenants: (name: string) => string },
): Usage[] {
  const found: Usage[] = []
  for (const event of events) {
    const gpus = gpusOf(event)
    const share = (count: number) => {
      const each = Math.floor(count / gpus.length)
      return BigInt(index === gpus[0] ? count - each * (gpus.length - 1) : each)
    }
    const model = names.models(event.model)
    const tenant = event.tenant === undefined ? null : names.tenants(event.tenant)
    let usage = found.find((other) => other.model === model && other.tenant === tenant)
    if (usage === undefined) {
      usage = { model, tenant, requests: 0n, uncached: 0n, cached: 0n, output: 0n, allRequests: 0n, events: 0n }
      found.push(usage)
    }
    const cached = event.cached_prompt_tokens ?? 0
    usage.requests += share(event.requests ?? 1)
    usage.uncached += share(event.prompt_tokens - cached)
    usage.cached += share(cached)
    usage.output += share(event.completion_tokens)
    usage.allRequests += BigInt(event.requests ?? 1)
    usage.events += 1n
  }
  return found.sort((a, b) => order(a.model, b.model) || order(a.tenant, b.tenant))
}

type EmptyRow = (model: string | null, tenant: string | null, kind: string) => OracleRow

function rowsWithTokens(
  intervals: Interval[],
  usages: Usage[],
  { book, empty }: { book: OracleBook; empty: EmptyRow },
): OracleRow[] {
  const classes = (u: Usage) => [
    u.uncached * nano(book.weights.input),
    u.cached * nano(book.weights.cached),
    u.output * nano(book.weights.output),
  ]
  let method = 'weighted-tokens'
  let shares = usages.map((usage) => sum(classes(usage)))
  if (sum(shares) === 0n) {
    method = 'requests'
    shares = usages.map((usage) => usage.allRequests)
  }
  if (sum(shares) === 0n) {
    method = 'events'
    shares = usages.map((usage) => usage.events)
  }
  const kinds = [...new Set(intervals.map((interval) => interval.kind))].sort()
  const ofKind = (kind: string, basis?: string) =>
    intervals.filter((s) => s.kind === kind && (basis === undefined || s.basis === basis))
  const ms = (some: Interval[]) => BigInt(some.reduce((total, interval) => total + interval.ms, 0))
  const cells = usages.flatMap((usage, u) =>
    kinds.map((kind) => ({ usage, u, kind, row: empty(usage.model, usage.tenant, kind) })),
  )
  for (const kind of kinds) {
    const mine = cells.filter((cell) => cell.kind === kind)
    const measured = hamilton(ms(ofKind(kind, 'measured')), shares)
    const presence = hamilton(ms(ofKind(kind, 'presence')), shares)
    const assumed = hamilton(ms(ofKind(kind, 'assumed')), shares)
    const known = ofKind(kind).filter((interval) => interval.energy !== null)
    const energy = hamilton(sum(known.map((interval) => interval.energy!)), shares)
    const bases = [...new Set(ofKind(kind).map((interval) => interval.basis))]
    for (const { u, row } of mine) {
      row.covered_ms = measured[u]! + presence[u]!
      row.presence_ms = presence[u]!
      row.assumed_ms = assumed[u]!
      if (known.length > 0) row.energy_mj = energy[u]!
      row.basis = bases.length === 1 ? bases[0]! : 'mixed'
      row.method = method
    }
  }
  const times = kinds.map((kind) => ms(ofKind(kind)))
  for (const [u, usage] of usages.entries()) {
    const [requests, uncached, cached, output] = [usage.requests, usage.uncached, usage.cached, usage.output].map((n) =>
      hamilton(n, times),
    )
    for (const [k, { row, kind }] of cells.filter((cell) => cell.u === u).entries()) {
      row.requests = requests![k]!
      row.prompt_tokens = uncached![k]! + cached![k]!
      row.cached_prompt_tokens = cached![k]!
      row.completion_tokens = output![k]!
      const byBasis = ['measured', 'presence', 'assumed'].map((basis) => ms(ofKind(kind, basis)))
      row.measured_tokens = hamilton(row.prompt_tokens + row.completion_tokens, byBasis)[0]!
    }
  }
  const split = (total: bigint, of: (interval: Interval) => bigint) =>
    hamilton(
      total,
      cells.map(({ u, kind }) => shares[u]! * sum(ofKind(kind).map(of))),
    )
  const total = roundHalfUp(sum(intervals.map((interval) => interval.busy + interval.idle)), DENOMINATOR)
  const busy = roundHalfUp(sum(intervals.map((interval) => interval.busy)), DENOMINATOR)
  const assumed = roundHalfUp(
    sum(intervals.filter((s) => s.basis === 'assumed').map((interval) => interval.busy)),
    DENOMINATOR,
  )
  const busyParts = split(busy, (interval) => interval.busy)
  const idleParts = split(total - busy, (interval) => interval.idle)
  const assumedParts = split(assumed, (interval) => (interval.basis === 'assumed' ? interval.busy : 0n))
  for (const [i, { row, usage }] of cells.entries()) {
    row.busy_nano_usd = busyParts[i]!
    row.loaded_idle_nano_usd = idleParts[i]!
    row.assumed_nano_usd = assumedParts[i]!
    if (method !== 'weighted-tokens') continue
    const parts = hamilton(busyParts[i]! + idleParts[i]!, classes(usage))
    ;[row.input_nano_usd, row.cached_nano_usd, row.output_nano_usd] = parts as [bigint, bigint, bigint]
  }
  return cells.map(({ row }) => row)
}

function rowsWithoutTokens(
  covered: Interval[],
  gaps: { interval: Interval; isPaid: boolean }[],
  empty: EmptyRow,
): OracleRow[] {
  const rows: OracleRow[] = []
  const rowOf = (model: string | null, kind: string) => {
    const found = rows.find((other) => other.model === model && other.price_kind === kind)
    if (found !== undefined) return found
    const row = empty(model, null, kind)
    rows.push(row)
    return row
  }
  for (const interval of covered) {
    const row = rowOf(interval.model, interval.kind)
    row.covered_ms += BigInt(interval.ms)
    if (interval.basis === 'presence') row.presence_ms += BigInt(interval.ms)
    if (interval.energy !== null) row.energy_mj = (row.energy_mj ?? 0n) + interval.energy
    row.basis = row.basis === 'none' || row.basis === interval.basis ? interval.basis : 'mixed'
    if (interval.model !== null) row.method = 'model-loaded'
    else if (interval.held) row.method = 'memory'
  }
  rows.sort((a, b) => order(a.model, b.model) || order(a.price_kind, b.price_kind))
  const mine = (row: OracleRow) =>
    covered.filter((interval) => interval.model === row.model && interval.kind === row.price_kind)
  const isLoaded = (interval: Interval) => interval.model !== null || interval.held
  const total = roundHalfUp(sum(covered.map((interval) => interval.busy + interval.idle)), DENOMINATOR)
  const busy = roundHalfUp(sum(covered.map((interval) => interval.busy)), DENOMINATOR)
  const busyParts = hamilton(
    busy,
    rows.map((row) => sum(mine(row).map((interval) => interval.busy))),
  )
  const idleWeights = rows.flatMap((row) => [
    sum(
      mine(row)
        .filter(isLoaded)
        .map((interval) => interval.idle),
    ),
    sum(
      mine(row)
        .filter((interval) => !isLoaded(interval))
        .map((interval) => interval.idle),
    ),
  ])
  const idleParts = hamilton(total - busy, idleWeights)
  for (const [i, row] of rows.entries()) {
    row.busy_nano_usd = busyParts[i]!
    row.loaded_idle_nano_usd = idleParts[2 * i]!
    row.unallocated_nano_usd = idleParts[2 * i + 1]!
  }
  const paid = gaps.filter((entry) => entry.isPaid).map((entry) => entry.interval)
  const kinds = [...new Set(paid.map((interval) => interval.kind))].sort()
  const costs = kinds.map((kind) =>
    sum(paid.filter((interval) => interval.kind === kind).map((interval) => interval.busy)),
  )
  const parts = hamilton(roundHalfUp(sum(costs), DENOMINATOR), costs)
  for (const [i, kind] of kinds.entries()) {
    const row = rowOf(null, kind)
    row.uncovered_nano_usd = parts[i]!
    for (const interval of paid) if (interval.kind === kind) row.uncovered_ms += BigInt(interval.ms)
  }
  return rows
}

function emptyRow(
  key: Pick<OracleRow, 'start' | 'host' | 'gpu_index' | 'gpu_uuid' | 'gpu_name' | 'model' | 'tenant' | 'price_kind'>,
): OracleRow {
  const zero = 0n
  const tokens = {
    requests: zero,
    prompt_tokens: zero,
    cached_prompt_tokens: zero,
    completion_tokens: zero,
    measured_tokens: zero,
  }
  const times = { covered_ms: zero, presence_ms: zero, assumed_ms: zero, uncovered_ms: zero }
  const money = {
    busy_nano_usd: zero,
    loaded_idle_nano_usd: zero,
    unallocated_nano_usd: zero,
    assumed_nano_usd: zero,
    uncovered_nano_usd: zero,
  }
  const parts = { input_nano_usd: zero, cached_nano_usd: zero, output_nano_usd: zero }
  return { ...key, ...tokens, ...times, ...money, ...parts, energy_mj: null, basis: 'none', method: 'none' }
}

/** Largest remainder, one unit at a time to whoever is owed the most; ties to the first. */
function hamilton(total: bigint, weights: bigint[]): bigint[] {
  const all = sum(weights)
  if (all === 0n) {
    if (total !== 0n) throw new Error(`Oracle cannot split ${total} over nothing`)
    return weights.map(() => 0n)
  }
  const parts = weights.map((weight) => (total * weight) / all)
  while (sum(parts) < total) {
    const owed = weights.map((weight, i) => total * weight - parts[i]! * all)
    const largest = owed.reduce((max, value) => (value > max ? value : max))
    parts[owed.indexOf(largest)]! += 1n
  }
  return parts
}

function sum(values: bigint[]): bigint {
  return values.reduce((total, value) => total + value, 0n)
}

function order(a: string | null, b: string | null): number {
  return a === b ? 0 : a === null ? -1 : b === null ? 1 : a < b ? -1 : 1
}
