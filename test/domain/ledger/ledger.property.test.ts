// The ledger against an obvious batch computation (test/oracle/batch-ledger.ts) over random fleets: 1 to 200 events, up
// to 4 slots and 3 hosts, a third of the events without host, a fifth at times that others have too, several GPUs,
// tenants, intervals, prices and rules. Same rows to the last 10⁻⁹ USD; every slot and minute closes; any order of the input gives
// the same.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { TokenDocument } from '../../../src/domain/events/event.ts'
import { computeCell } from '../../../src/domain/ledger/cell.ts'
import { rowFromJson, rowToJson } from '../../../src/domain/ledger/row-json.ts'
import { spreadNullIdle, totalNanoUsd } from '../../../src/domain/ledger/rows.ts'
import { totalsOfEvent } from '../../../src/domain/ledger/token-totals.ts'
import { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { checkPriceBook, problemText } from '../../../src/domain/prices/price-book-check.ts'
import type { PriceBookDocument, PriceRuleData } from '../../../src/domain/prices/price-book-schema.ts'
import type { OracleBook, OracleRule } from '../../oracle/batch-intervals.ts'
import { batchLedger } from '../../oracle/batch-ledger.ts'
import {
  cellOf,
  compareCellRows,
  cutAtMinutes,
  ledgerRows,
  type Sample,
  type Usage,
} from '../../oracle/ledger-harness.ts'
import { sumRows } from '../../report/rows.ts'

const MINUTE_MS = 60_000
/** One minute before a day's edge. */
const T0 = Date.UTC(2026, 2, 31, 23, 58)
/** From two minutes before the first sample, and before the longest interval. */
const RANGE = { fromMs: T0 - 6 * MINUTE_MS, toMs: T0 + 7 * MINUTE_MS }

const hosts = fc.oneof(
  { weight: 1, arbitrary: fc.constant(null) },
  { weight: 2, arbitrary: fc.constantFrom('a', 'b', 'c') },
)
/** A fifth on whole tens of seconds, so that times are equal, also between slots, tokens and rules. */
const instant = fc
  .oneof(
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 30 }).map((n) => n * 10_000) },
    { weight: 4, arbitrary: fc.integer({ min: 0, max: 5 * MINUTE_MS }) },
  )
  .map((ms) => T0 + ms)
const price = fc.constantFrom(0, 0.85, 1.23456789, 2.5, 3.999999999, 98.32)
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 3 })
const count = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 1_000_000_000 }))

/** Absent fields are absent, not undefined, as in documents. */
function compact<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T
}

const sample = fc
  .record({
    _id: fc.stringMatching(/^pt1e:[a-z0-9]{6}$/),
    ts: instant.map((ms) => new Date(ms)),
    host: hosts,
    gpu_index: fc.integer({ min: 0, max: 3 }),
    uuid: maybe(fc.constantFrom('GPU-1', 'GPU-2')),
    name: maybe(fc.constantFrom('NVIDIA H100 80GB', 'NVIDIA A100', 'L4')),
    utilization: maybe(
      fc.oneof(fc.constantFrom(0, 1, 0.00005, 0.00015, 0.57895, 1 / 3), fc.double({ min: 0, max: 1, noNaN: true })),
    ),
    mem_used_mb: maybe(fc.constantFrom(0, 3999, 4000, 70_000)),
    mem_total_mb: maybe(fc.constantFrom(0, 80_000)),
    power_w: maybe(fc.constantFrom(0, 71.5, 333.333, 700)),
    energy_j: maybe(fc.integer({ min: 0, max: 100_000 }).map((n) => n / 8)),
    price_per_hour_usd: maybe(price),
    model_loaded: maybe(fc.constantFrom('m1', 'm2', 'x')),
  })
  .map((one) => compact(one) as Sample)

/** Intervals within a minute and over several. */
const seconds = fc.oneof(
  fc.constantFrom(0, 0.0004, 0.001, 5, 59.999, 60, 60.001, 120, 300),
  fc.double({ min: 0, max: 300, noNaN: true }),
)

const usage = fc
  .record({
    ts: instant.map((ms) => new Date(ms)),
    host: hosts,
    gpus: fc.uniqueArray(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 4 }),
    isPlain: fc.boolean(),
    model: fc.constantFrom('m1', 'm2', 'm3'),
    tenant: maybe(fc.constantFrom('t1', 't2', 't3')),
    uncached: count,
    cached: maybe(fc.integer({ min: 0, max: 1000 })),
    completion_tokens: count,
    requests: maybe(fc.integer({ min: 0, max: 9 })),
    interval_s: fc.option(seconds, { nil: undefined, freq: 1 }),
  })
  .map(({ gpus, isPlain, uncached, cached, ...rest }) => {
    const where = isPlain ? { gpu_index: gpus[0] } : { gpus }
    const prompt_tokens = Math.min(1e9, uncached + (cached ?? 0))
    return compact({ ...rest, ...where, prompt_tokens, cached_prompt_tokens: cached }) as Usage
  })

/** Agents that sample at a steady pace, so that most time is covered. */
const steady = fc
  .record({
    host: hosts,
    gpu_index: fc.integer({ min: 0, max: 3 }),
    everyMs: fc.constantFrom(12_000, 30_000, 60_000, 90_000, 90_001),
    // Counters that count, rest, and leap.
    riseJ: fc.constantFrom(12_345.678, 12_345.678, 0, 3e6),
    otherUuidFrom: fc.constantFrom(0, 0, 2, 3),
    first: sample,
    startMs: fc.integer({ min: -MINUTE_MS, max: 2 * MINUTE_MS }),
  })
  .map(({ host, gpu_index, everyMs, riseJ, otherUuidFrom, first, startMs }) =>
    Array.from({ length: 5 }, (_, i) => ({
      ...first,
      ...(first.energy_j === undefined ? {} : { energy_j: first.energy_j + i * riseJ }),
      ...(otherUuidFrom > 0 && i >= otherUuidFrom ? { uuid: 'GPU-2' } : {}),
      _id: `pt1e:steady${i}${first._id}`,
      host,
      gpu_index,
      ts: new Date(T0 + startMs + i * everyMs),
    })),
  )

const events = fc
  .record({
    steady: fc.array(steady, { maxLength: 10, size: 'max' }),
    loose: fc.array(sample, { maxLength: 60, size: 'max' }),
    usages: fc.array(usage, { maxLength: 90, size: 'max' }),
  })
  .map((all) => ({
    samples: uniqueIds([...all.steady.flat(), ...all.loose]),
    usages: all.usages,
  }))
  .filter((all) => all.samples.length + all.usages.length >= 1 && all.samples.length + all.usages.length <= 200)

function uniqueIds(samples: Sample[]): Sample[] {
  return [...new Map(samples.map((one) => [one._id, one])).values()]
}

const match = fc.oneof(
  fc.record({ uuid: fc.constantFrom('GPU-1', 'GPU-2') }),
  fc.record({ uuid: fc.constantFrom('GPU-1'), host: fc.constantFrom('a', 'b'), gpu_index: fc.constantFrom(0, 1) }),
  fc.record({ host: fc.constantFrom('a', 'b', 'd'), gpu_index: fc.integer({ min: 0, max: 4 }) }),
  fc.record({ host: fc.constantFrom('a', 'b', 'c') }),
  fc.record({ name: fc.constantFrom('*', 'NVIDIA*', '*H100*', 'L4', 'L*', 'L4*', '*4', '*A*0') }),
)
const ruleTime = fc.option(
  instant.map((ms) => new Date(ms).toISOString()),
  { nil: undefined },
)
const terms = fc.oneof(
  fc.record({ kind: fc.constantFrom('on-demand', 'spot', 'reserved'), usd_per_hour: price }),
  fc
    .record({
      purchase_usd: fc.constantFrom(3000, 30_000.5),
      salvage_usd: maybe(fc.constantFrom(0, 2999.99)),
      life_hours: fc.constantFrom(1, 35_040, 43_800.5),
      usd_per_kwh: maybe(fc.constantFrom(0.0999, 0.31)),
      pue: maybe(fc.constantFrom(1, 1.37)),
    })
    .map((owned) => ({ kind: 'owned', ...owned })),
)
const rule = fc
  .record({ match, from: ruleTime, to: ruleTime, terms })
  .map(({ match, from, to, terms }) => compact({ match, from, to, ...compact(terms) }))

/** A book whose rules pass the check: a rule that would make it fail is left out. */
const book = fc
  .record({
    rules: fc.array(rule, { maxLength: 10, size: 'max' }),
    weights: fc.constantFrom(
      undefined,
      { input: 1, cached: 0.1, output: 4 },
      { input: 0, cached: 0, output: 0 },
      { output: 0 },
    ),
    maxModels: fc.constantFrom(1, 2, 32),
    maxTenants: fc.constantFrom(1, 100),
    gapS: fc.constantFrom(90, 90, 31),
    defaults: fc.constantFrom([null], [null, T0 + 100_000]),
    hosts: fc.constantFrom<PriceBookDocument['hosts'][]>(
      undefined,
      undefined,
      [{ name: 'a', aliases: ['b'] }],
      [{ name: 'd', aliases: ['c', 'a'] }],
    ),
  })
  .map((all): PriceBookDocument => {
    const data: PriceBookDocument = {
      currency: 'USD',
      defaults: all.defaults.map((from_ms, i) => ({ from_ms, usd_per_hour: 0.85 + i })),
      ...(all.weights === undefined ? {} : { weights: all.weights }),
      ...(all.hosts === undefined ? {} : { hosts: all.hosts }),
      limits: { max_sample_gap_s: all.gapS, max_models_per_cell: all.maxModels, max_tenants_per_cell: all.maxTenants },
      rules: [],
    }
    for (const [i, one] of all.rules.entries()) {
      const rules = [...data.rules, { id: `r${i}`, ...one } as PriceRuleData]
      if (checkPriceBook({ ...data, rules }).book !== null) data.rules = rules
    }
    return data
  })

function oracleBook(data: PriceBookDocument): OracleBook {
  return {
    defaults: data.defaults!.map((entry) => ({ fromMs: entry.from_ms, usdPerHour: entry.usd_per_hour })),
    weights: { input: 1, cached: 1, output: 1, ...data.weights },
    gapMs: data.limits!.max_sample_gap_s! * 1000,
    maxModels: data.limits!.max_models_per_cell!,
    maxTenants: data.limits!.max_tenants_per_cell!,
    hosts: Object.fromEntries((data.hosts ?? []).flatMap(({ name, aliases }) => aliases.map((alias) => [alias, name]))),
    rules: data.rules.map(
      ({ from, to, ...rest }) =>
        ({
          ...rest,
          fromMs: from === undefined ? null : Date.parse(from),
          toMs: to === undefined ? null : Date.parse(to),
        }) as OracleRule,
    ),
  }
}

test('the ledger equals the batch computation, to the last unit', () => {
  fc.assert(
    fc.property(events, book, ({ samples, usages }, data) => {
      const problems = checkPriceBook(data).problems.map(problemText)
      assert.deepEqual(problems, [])
      const found = ledgerRows({ samples, usages }, RANGE, new PriceBook(data, 1))
      const expected = batchLedger(samples, usages as never, { book: oracleBook(data), ...RANGE }).sort(compareCellRows)
      assert.deepEqual(found, expected)
    }),
    { numRuns: 250 },
  )
})

test('every slot and minute closes, and counts and milliseconds add up', () => {
  fc.assert(
    fc.property(events, book, ({ samples, usages }, data) => {
      const rows = ledgerRows({ samples, usages }, RANGE, new PriceBook(data, 1))
      for (const group of Map.groupBy(rows, (row) => `${row.start} ${row.host} ${row.gpu_index}`).values()) {
        const all = sumRows(group.map((row) => ({ ...row, model: null, tenant: null, price_kind: 'default' as const })))
        assert.equal(all.length, 1)
        const [sum] = all
        const ms = sum!.covered_ms + sum!.assumed_ms + sum!.uncovered_ms
        assert.ok(ms <= 60_000n && ms > 0n)
        assert.ok(sum!.assumed_nano_usd <= totalNanoUsd(sum!))
        if (sum!.requests + sum!.prompt_tokens + sum!.completion_tokens > 0n) assert.equal(ms, 60_000n)
        for (const row of group) {
          const parts = row.input_nano_usd + row.cached_nano_usd + row.output_nano_usd
          if (row.method === 'weighted-tokens') assert.equal(parts, row.busy_nano_usd + row.loaded_idle_nano_usd)
          else assert.equal(parts, 0n)
          assert.deepEqual(rowFromJson(JSON.parse(JSON.stringify(rowToJson(row)))), rowOnly(row))
        }
      }
      const total = (of: (one: Usage) => number) => usages.reduce((sum, one) => sum + BigInt(of(one)), 0n)
      const sums = (field: 'prompt_tokens' | 'completion_tokens' | 'requests' | 'cached_prompt_tokens') =>
        rows.reduce((sum, row) => sum + row[field], 0n)
      assert.equal(
        sums('prompt_tokens'),
        total((one) => one.prompt_tokens),
      )
      assert.equal(
        sums('cached_prompt_tokens'),
        total((one) => one.cached_prompt_tokens ?? 0),
      )
      assert.equal(
        sums('completion_tokens'),
        total((one) => one.completion_tokens),
      )
      assert.equal(
        sums('requests'),
        total((one) => one.requests ?? 1),
      )
    }),
    { numRuns: 120 },
  )
})

test('any order of samples and events, grouped or one by one, gives the same cell', () => {
  fc.assert(
    fc.property(events, book, fc.infiniteStream(fc.nat()), ({ samples, usages }, data, random) => {
      const priceBook = new PriceBook(data, 1)
      const shuffled = { samples: shuffle(samples, random), usages: shuffle(usages, random) }
      assert.deepEqual(ledgerRows(shuffled, RANGE, priceBook), ledgerRows({ samples, usages }, RANGE, priceBook))
      const cell = { host: 'a', startMs: T0 }
      const names = priceBook.hosts.namesOf('a')
      const inCell = cutAtMinutes(shuffled.usages).filter(
        (one) => names.includes(one.host) && one.ts.getTime() >= T0 && one.ts.getTime() < T0 + MINUTE_MS,
      )
      const tokenTotals = inCell.map((one) => totalsOfEvent(one as TokenDocument))
      const own = shuffled.samples.filter((one) => names.includes(one.host))
      const single = computeCell({ ...cell, samples: own, tokenTotals, book: priceBook })
      assert.deepEqual(single, cellOf({ samples, usages }, cell, priceBook))
    }),
    { numRuns: 100 },
  )
})

test('sums of rows do not hang on order or grouping, and spreading idle keeps totals', () => {
  fc.assert(
    fc.property(events, book, fc.nat(), ({ samples, usages }, data, cut) => {
      const priceBook = new PriceBook(data, 1)
      const rows = [0, 1, 2, 3, 4].flatMap(
        (i) => cellOf({ samples, usages }, { host: 'a', startMs: T0 + i * MINUTE_MS }, priceBook).rows,
      )
      const at = rows.length === 0 ? 0 : cut % rows.length
      const whole = sumRows(rows)
      assert.deepEqual(sumRows([...sumRows(rows.slice(at)), ...sumRows(rows.slice(0, at))]), whole)
      const spread = spreadNullIdle(whole)
      const bySlot = (some: typeof rows) =>
        sumRows(
          some.map((row) => ({ ...row, gpu_uuid: null, model: null, tenant: null, price_kind: 'default' as const })),
        )
      assert.deepEqual(bySlot(spread), bySlot(whole))
      // Rows of minutes, in any order, are spread as those of their hour.
      assert.deepEqual(spreadNullIdle([...rows.slice(at), ...rows.slice(0, at)]), spread)
    }),
    { numRuns: 120 },
  )
})

function rowOnly<T extends { start: number; host: string | null }>(row: T): Omit<T, 'start' | 'host'> {
  const { start: _, host: __, ...rest } = row
  return rest
}

function shuffle<T>(items: readonly T[], random: Iterator<number>): T[] {
  return items
    .map((item) => ({ item, rank: random.next().value as number }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item)
}
