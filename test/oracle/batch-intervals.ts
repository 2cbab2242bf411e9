// The first half of the batch oracle: what a slot's minute consists of. Time is cut at every instant at which anything
// changes, and for each elementary interval the two samples around it and the effective rule are looked up on their
// own. Plain and slow, with nothing imported from src/; the second half, batch-ledger.ts, determines who pays.

export interface OracleSample {
  _id: string
  ts: Date
  host: string | null
  gpu_index: number
  uuid?: string
  name?: string
  utilization?: number
  mem_used_mb?: number
  mem_total_mb?: number
  power_w?: number
  energy_j?: number
  price_per_hour_usd?: number
  model_loaded?: string
}

export interface OracleRule {
  id: string
  match: { uuid?: string; host?: string; gpu_index?: number; name?: string }
  fromMs: number | null
  toMs: number | null
  kind: string
  usd_per_hour?: number
  purchase_usd?: number
  salvage_usd?: number
  life_hours?: number
  usd_per_kwh?: number
  pue?: number
}

export interface OracleBook {
  defaults: { fromMs: number | null; usdPerHour: number }[]
  weights: { input: number; cached: number; output: number }
  gapMs: number
  maxModels: number
  maxTenants: number
  /** The one name of each joined host name. */
  hosts?: Record<string, string>
  rules: OracleRule[]
}

export const MINUTE = 60_000
/** price (10⁻⁹ USD/h) × ms × utilisation (1/10,000) → 10⁻⁹ USD */
export const DENOMINATOR = 3_600_000n * 10_000n

export interface Interval {
  /** Its first instant. */
  at: number
  ms: number
  price: bigint
  kind: string
  /** Numerators over DENOMINATOR. */
  busy: bigint
  idle: bigint
  basis: 'measured' | 'presence' | 'assumed'
  model: string | null
  held: boolean
  energy: bigint | null
}

export interface CellOptions {
  book: OracleBook
  start: number
  host: string | null
}

export function intervalsOf(samples: OracleSample[], index: number, { book, start, host }: CellOptions) {
  const end = start + MINUTE
  const near = samples
    .filter((s) => s.ts.getTime() >= start - book.gapMs && s.ts.getTime() < end + book.gapMs)
    .sort(
      (a, b) => Math.abs(a.ts.getTime() - start) - Math.abs(b.ts.getTime() - start) || a.ts.getTime() - b.ts.getTime(),
    )
  const seenUuid = near.find((s) => s.uuid !== undefined)?.uuid ?? null
  const name = near.find((s) => s.name !== undefined)?.name ?? null
  const nearPrice = near.find((s) => s.price_per_hour_usd !== undefined)?.price_per_hour_usd ?? null
  const instants = [start, end, ...samples.map((s) => s.ts.getTime()), ...book.defaults.map((d) => d.fromMs ?? start)]
  for (const rule of book.rules) instants.push(rule.fromMs ?? start, rule.toMs ?? start)
  const cuts = [...new Set(instants.filter((at) => at >= start && at <= end))].sort((a, b) => a - b)
  const covered: Interval[] = []
  const gaps: { interval: Interval; isPaid: boolean }[] = []
  let paidUuid: string | null = null
  for (let i = 0; i + 1 < cuts.length; i++) {
    const at = cuts[i]!
    const ms = cuts[i + 1]! - at
    const before = samples.findLast((s) => s.ts.getTime() <= at)
    const after = samples.find((s) => s.ts.getTime() > at)
    if (before !== undefined && after !== undefined && after.ts.getTime() - before.ts.getTime() <= book.gapMs) {
      const energy = energyOf(before, after, near)
      covered.push(coveredSpan(before, after, { at, ms, book, host, index, energy }))
      continue
    }
    const isSilent = near.length === 0
    const rule = winner(book, { uuid: seenUuid, host, index, name, isSilent }, at)
    if (isSilent) paidUuid ??= rule?.match.uuid ?? null
    const price = rule === null ? (nearPrice === null ? defaultAt(book, at) : nano(nearPrice)) : hourly(rule)
    const kind = rule === null ? (nearPrice === null ? 'default' : 'sample') : rule.kind
    const busy = price * BigInt(ms) * 10_000n
    const interval: Interval = {
      at,
      ms,
      price,
      kind,
      busy,
      idle: 0n,
      basis: 'assumed',
      model: null,
      held: false,
      energy: null,
    }
    const isPaid =
      rule !== null && rule.fromMs !== null && (rule.match.uuid !== undefined || rule.match.gpu_index !== undefined)
    gaps.push({ interval, isPaid })
  }
  return { covered, gaps, uuid: seenUuid ?? paidUuid, name }
}

interface SpanOptions {
  at: number
  ms: number
  book: OracleBook
  host: string | null
  index: number
  energy: bigint | null
}

/** Energy between two adjacent samples in µJ; `near`: all samples that the cell may know of. */
function energyOf(before: OracleSample, after: OracleSample, near: OracleSample[]): bigint | null {
  const over = after.ts.getTime() - before.ts.getTime()
  const milliwatts = (s: OracleSample) => Number(written(s.power_w ?? 0, 3))
  const byPower = after.power_w === undefined ? null : BigInt(milliwatts(after)) * BigInt(over)
  if (before.energy_j === undefined || after.energy_j === undefined || !isOneGpu(before, after)) return byPower
  const rise = (written(after.energy_j, 3) - written(before.energy_j, 3)) * 1000n
  const limit = BigInt(Math.max(10_000_000, 4 * milliwatts(before), 4 * milliwatts(after))) * BigInt(over)
  if (after.energy_j < before.energy_j || rise > limit) return byPower
  if (Math.min(milliwatts(before), milliwatts(after)) <= 20_000) return rise
  // Every stretch of samples, of those near, over which the counter rests and the GPU is one, and that has both.
  const ordered = near.toSorted((a, b) => a.ts.getTime() - b.ts.getTime())
  const changes = ordered.map(
    (s, i) => i === 0 || s.energy_j !== ordered[i - 1]!.energy_j || !isOneGpu(ordered[i - 1]!, s),
  )
  const stretch = (s: OracleSample) => changes.slice(0, ordered.indexOf(s) + 1).filter((change) => change).length
  if (stretch(before) !== stretch(after)) return rise
  const resting = ordered.filter((s) => stretch(s) === stretch(after)).map((s) => s.ts.getTime())
  return Math.max(...resting) - Math.min(...resting) >= 60_000 ? byPower : rise
}

function isOneGpu(a: OracleSample, b: OracleSample): boolean {
  if (a.uuid !== undefined && b.uuid !== undefined) return a.uuid === b.uuid
  return a.name === undefined || b.name === undefined || a.name === b.name
}

function coveredSpan(
  before: OracleSample,
  after: OracleSample,
  { at, ms, book, host, index, energy: microjoules }: SpanOptions,
): Interval {
  const over = after.ts.getTime() - before.ts.getTime()
  const rule = winner(book, { uuid: after.uuid ?? null, host, index, name: after.name ?? null }, at)
  let price = after.price_per_hour_usd === undefined ? defaultAt(book, at) : nano(after.price_per_hour_usd)
  if (rule !== null) {
    price = hourly(rule)
    // µJ ÷ ms = mW; × 10⁻⁶ kW; × USD/kWh × PUE.
    if (microjoules !== null && rule.kind === 'owned') {
      price += roundHalfUp(microjoules * nano(rule.usd_per_kwh ?? 0) * nano(rule.pue ?? 1), BigInt(over) * 10n ** 15n)
    }
  }
  const kind = rule?.kind ?? (after.price_per_hour_usd === undefined ? 'default' : 'sample')
  const u = after.utilization === undefined ? 10_000 : Number(written(after.utilization, 4))
  const used = (until: number) => (microjoules! * BigInt(until - before.ts.getTime())) / (BigInt(over) * 1000n)
  const total = after.mem_total_mb ?? 0
  return {
    at,
    ms,
    price,
    kind,
    busy: price * BigInt(ms) * BigInt(u),
    idle: price * BigInt(ms) * BigInt(10_000 - u),
    basis: after.utilization === undefined ? 'presence' : 'measured',
    model: after.model_loaded ?? null,
    held: total > 0 && after.mem_used_mb !== undefined && after.mem_used_mb >= total / 20,
    energy: microjoules === null ? null : used(at + ms) - used(at),
  }
}

function winner(
  book: OracleBook,
  gpu: { uuid: string | null; host: string | null; index: number; name: string | null; isSilent?: boolean },
  at: number,
): OracleRule | null {
  const fits = book.rules.filter((rule) => {
    const { uuid, host, gpu_index, name } = rule.match
    if ((rule.fromMs !== null && at < rule.fromMs) || (rule.toMs !== null && at >= rule.toMs)) return false
    if (uuid !== undefined && uuid !== gpu.uuid && !(gpu.isSilent && gpu_index !== undefined)) return false
    if (host !== undefined && host !== gpu.host) return false
    if (gpu_index !== undefined && gpu_index !== gpu.index) return false
    return name === undefined || (gpu.name !== null && glob(name).test(gpu.name))
  })
  const rank = ({ match }: OracleRule) =>
    (match.uuid !== undefined ? 4 : 0) + (match.gpu_index !== undefined ? 2 : 0) + (match.host !== undefined ? 1 : 0)
  const literal = (rule: OracleRule) => (rule.match.name ?? '').replaceAll('*', '').length
  // Of two GPUs that a silent slot is paid for under, the one with the newest rule for it.
  const newest = ({ match }: OracleRule) =>
    Math.max(
      ...book.rules
        .filter(
          (rule) =>
            rule.match.uuid === match.uuid &&
            rule.match.host === match.host &&
            rule.match.gpu_index === match.gpu_index,
        )
        .map((rule) => rule.fromMs ?? 0),
    )
  const stars = (rule: OracleRule) => (rule.match.name ?? '').split('*').length
  fits.sort(
    (a, b) =>
      rank(b) - rank(a) ||
      literal(b) - literal(a) ||
      stars(a) - stars(b) ||
      newest(b) - newest(a) ||
      ((a.match.name ?? a.match.uuid)! < (b.match.name ?? b.match.uuid)! ? -1 : 1),
  )
  return fits[0] ?? null
}

function glob(pattern: string): RegExp {
  return new RegExp(
    `^${pattern
      .split('*')
      .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
      .join('.*')}$`,
    's',
  )
}

function defaultAt(book: OracleBook, at: number): bigint {
  const past = book.defaults.filter((entry) => entry.fromMs === null || entry.fromMs <= at)
  return nano(past.sort((a, b) => (a.fromMs ?? -1) - (b.fromMs ?? -1)).at(-1)!.usdPerHour)
}

function hourly(rule: OracleRule): bigint {
  if (rule.kind !== 'owned') return nano(rule.usd_per_hour!)
  return roundHalfUp((nano(rule.purchase_usd!) - nano(rule.salvage_usd ?? 0)) * 10n ** 9n, nano(rule.life_hours!))
}

/** USD, or any figure, in 10⁻⁹; rounded half up as it is written. */
export function nano(value: number): bigint {
  return written(value, 9)
}

/** A figure that is not negative, in 10⁻ᵖˡᵃᶜᵉˢ, by its text. */
function written(value: number, places: number): bigint {
  const [text, exponent = '0'] = String(value).split('e') as [string, string?]
  const [whole, fraction = ''] = text.split('.') as [string, string?]
  const moved = Number(exponent) - fraction.length + places
  const digits = BigInt(whole + fraction)
  return moved >= 0 ? digits * 10n ** BigInt(moved) : roundHalfUp(digits, 10n ** BigInt(-moved))
}

export function roundHalfUp(numerator: bigint, denominator: bigint): bigint {
  return (2n * numerator + denominator) / (2n * denominator)
}
