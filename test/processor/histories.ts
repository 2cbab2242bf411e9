// Random histories for tests that ask a whole store: GPUs that are sampled at a pace and some that are not, with prices,
// uuids that change, energy counters; token usage with and without host, on one GPU or several; price books whose rules
// begin and end in mid-minute, commit a slot that may never report, and own GPUs with energy. All around a day's edge.

import fc from 'fast-check'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { checkPriceBook } from '../../src/domain/prices/price-book-check.ts'
import type { PriceBookDocument, PriceRuleData } from '../../src/domain/prices/price-book-schema.ts'
import { edge } from './ledger/keeper-scenario.ts'
import { MINUTE, sample, token } from './ledger/ledger-place.ts'

export const HOSTS = [null, 'a', 'b', 'unreported'] as const
export const GPUS = [0, 1, 2] as const

export interface History {
  samples: GpuDocument[]
  tokens: TokenDocument[]
}

/** From 10 minutes before the edge to 15 after it; a third on whole tens of seconds, so that times meet. */
export const instant = fc
  .oneof(
    { weight: 1, arbitrary: fc.integer({ min: -60, max: 90 }).map((n) => n * 10_000) },
    { weight: 2, arbitrary: fc.integer({ min: -10 * MINUTE, max: 15 * MINUTE }) },
  )
  .map((ms) => edge + ms)
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 3 })
const eventHost = fc.constantFrom(null, 'a', 'a', 'b')
const gpu = fc.constantFrom(...GPUS)
const price = fc.constantFrom(0, 0.85, 1.23456789, 3.6, 98.32)

/** Absent fields are absent, as in documents. */
function compact<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T
}

/** A slot's samples at a pace; what they report may change from one to the next. */
const paced = fc
  .record({
    host: eventHost,
    gpu_index: gpu,
    startMs: instant,
    everyMs: fc.constantFrom(7_000, 30_000, 60_000, 90_000, 90_001),
    name: maybe(fc.constantFrom('NVIDIA H100 80GB', 'L4')),
    mem_total_mb: maybe(fc.constant(80_000)),
    riseJ: fc.constantFrom(undefined, 0, 12_345.678, 9e6),
    readings: fc.array(
      fc.record({
        uuid: fc.constantFrom('GPU-1', 'GPU-1', 'GPU-2', undefined),
        utilization: maybe(fc.oneof(fc.constantFrom(0, 1, 0.57895), fc.double({ min: 0, max: 1, noNaN: true }))),
        mem_used_mb: maybe(fc.constantFrom(100, 4000, 70_000)),
        power_w: maybe(fc.constantFrom(71.5, 333.3335, 700)),
        price_per_hour_usd: maybe(price),
        model_loaded: maybe(fc.constantFrom('m1', 'x')),
      }),
      { minLength: 1, maxLength: 12 },
    ),
  })
  .map(({ host, gpu_index, startMs, everyMs, name, mem_total_mb, riseJ, readings }) =>
    readings.map((reading, i) => {
      const energy_j = riseJ === undefined ? undefined : 1000.25 + i * riseJ
      const { utilization: _, ...plain } = sample(startMs + i * everyMs)
      return compact({ ...plain, host, gpu_index, name, mem_total_mb, energy_j, ...reading }) as GpuDocument
    }),
  )

const used = fc
  .record({
    atMs: instant,
    host: eventHost,
    gpus: fc.uniqueArray(gpu, { minLength: 1, maxLength: 3 }),
    isPlain: fc.boolean(),
    model: fc.constantFrom('m1', 'm2'),
    tenant: maybe(fc.constantFrom('t1', 't2')),
    prompt_tokens: fc.constantFrom(0, 7, 1000, 123_457),
    cached_prompt_tokens: fc.constantFrom(undefined, 0, 5),
    completion_tokens: fc.constantFrom(0, 3, 98_765),
    requests: maybe(fc.constantFrom(0, 2)),
  })
  .map(({ atMs, gpus, isPlain, cached_prompt_tokens: cached, ...fields }) => {
    const { gpu_index: _, ...plain } = token(atMs)
    const where = isPlain ? { gpu_index: gpus[0] } : { gpus: gpus.toSorted((a, b) => a - b) }
    const cached_prompt_tokens = cached === undefined ? undefined : Math.min(cached, fields.prompt_tokens)
    return compact({ ...plain, ...where, ...fields, cached_prompt_tokens }) as TokenDocument
  })

export const history: fc.Arbitrary<History> = fc.record({
  samples: fc.array(paced, { minLength: 1, maxLength: 5 }).map((all) => all.flat()),
  tokens: fc.array(used, { maxLength: 25 }),
})

const iso = (ms: number) => new Date(ms).toISOString()
const match = fc.oneof(
  fc.record({ uuid: fc.constantFrom('GPU-1', 'GPU-2') }),
  fc.record({ uuid: fc.constant('GPU-1'), host: fc.constantFrom('a', 'b'), gpu_index: gpu }),
  fc.record({ host: fc.constantFrom('a', 'b', 'unreported'), gpu_index: gpu }),
  fc.record({ host: fc.constantFrom('a', 'b') }),
  fc.record({ name: fc.constantFrom('*', '*H100*', 'L4') }),
)
const terms = fc.oneof(
  fc.record({ kind: fc.constantFrom('on-demand', 'spot', 'reserved'), usd_per_hour: price }),
  fc.record({
    kind: fc.constant('owned'),
    purchase_usd: fc.constantFrom(3000, 30_000.5),
    life_hours: fc.constantFrom(35_040, 43_800.5),
    usd_per_kwh: fc.constantFrom(0.0999, 0.31),
  }),
)
const rule = fc
  .record({ match, from: maybe(instant.map(iso)), to: maybe(instant.map(iso)), terms })
  .map(({ terms: ofKind, ...rest }) => compact({ ...rest, ...ofKind }))

/** A book that passes its check: a rule that would make it fail is left out. */
export const priceBook = fc
  .record({
    rules: fc.array(rule, { maxLength: 6 }),
    weights: fc.constantFrom(undefined, { input: 1, cached: 0.1, output: 4 }, { output: 0 }),
    limits: fc.constantFrom(undefined, { max_models_per_cell: 1, max_tenants_per_cell: 1, max_sample_gap_s: 31 }),
    defaultUsd: fc.constantFrom(undefined, 0.85, 2.4),
  })
  .map(({ rules, weights, limits, defaultUsd }): PriceBookDocument => {
    const book = compact({ currency: 'USD', default_usd_per_hour: defaultUsd, weights, limits, rules: [] })
    for (const [i, one] of rules.entries()) {
      const more = [...(book.rules as PriceRuleData[]), { id: `r${i}`, ...one } as PriceRuleData]
      if (checkPriceBook({ ...book, rules: more }).book !== null) (book as PriceBookDocument).rules = more
    }
    return book as PriceBookDocument
  })
