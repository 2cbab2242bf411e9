// The same question, the same answer: over random histories and price books a store is asked for its money in every way
// there is, and all ways must agree to the last unit. By each grouping, as sums of shorter steps, with idle spread or
// not, as `--revision` (the newest, and the one before a repricing), as what `prices set` announces against what
// `reprice` does and what the ledger then has; and `explain` at random instants against the oracle's price there.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CELL_MS, DAY_MS, floorTo, HOUR_MS } from '../../src/domain/ledger/buckets.ts'
import { AMOUNT_FIELDS, totalNanoUsd } from '../../src/domain/ledger/rows.ts'
import { defaultsOf } from '../../src/domain/prices/book-defaults.ts'
import { nanoUsd } from '../../src/domain/prices/money.ts'
import type { PriceBookDocument } from '../../src/domain/prices/price-book-schema.ts'
import { CostReading, UNKNOWN_PROGRESS } from '../../src/processor/cost/cost-reading.ts'
import { PriceBookVersions, setBook } from '../../src/processor/prices/price-book-versions.ts'
import { explainPrice } from '../../src/processor/prices/price-explanation.ts'
import { type MoneyChange, priceChange } from '../../src/processor/recompute/price-change.ts'
import { reprice } from '../../src/processor/recompute/reprice.ts'
import type { CostRow } from '../../src/report/cost-grouping.ts'
import {
  type CostQuery,
  costQuery,
  GROUPINGS,
  type Grouping,
  type IdleWay,
  type Step,
} from '../../src/report/cost-query.ts'
import { intervalsOf, type OracleBook, type OracleRule, type OracleSample } from '../oracle/batch-intervals.ts'
import { GPUS, type History, HOSTS, history, instant, priceBook } from './histories.ts'
import type { OpenStore } from './ledger/keeper.contract.ts'
import { edge } from './ledger/keeper-scenario.ts'
import { LedgerPlace, MINUTE } from './ledger/ledger-place.ts'

interface Range {
  fromMs: number
  toMs: number
}

/** Whole days around the events: hours and days are read, and minutes at the end. */
const WHOLE: Range = { fromMs: floorTo(DAY_MS, edge) - DAY_MS, toMs: floorTo(DAY_MS, edge) + HOUR_MS / 2 }
const BY: readonly (readonly Grouping[])[] = [[], ...GROUPINGS.map((one) => [one]), ['model', 'tenant'], GROUPINGS]

const drawn = fc.record({
  history,
  /** Versions; the first two price parts of the history from their start on. */
  books: fc.tuple(priceBook, priceBook, priceBook),
  bookFrom: fc.tuple(instant, instant).map((all) => all.toSorted((a, b) => a - b)),
  repriced: fc.tuple(instant, instant),
  /** How many events come before the first keeper. */
  early: fc.nat(),
  instants: fc.array(
    fc.record({ host: fc.constantFrom(...HOSTS), gpuIndex: fc.constantFrom(...GPUS), atMs: instant }),
    {
      minLength: 5,
      maxLength: 15,
    },
  ),
})

export function sameAnswerContract(name: string, open: OpenStore, { runs }: { runs: number }): void {
  const seen = { repriced: 0, uncovered: 0, times: new Set<string>() }

  test(`${name}: all ways to ask for the same money agree`, { timeout: 600_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(drawn, async ({ history: events, books, bookFrom, repriced, early, instants }) => {
        const { store, dispose } = await open()
        try {
          const place = await LedgerPlace.on(store)
          place.nowMs = edge + 2 * HOUR_MS
          for (const [i, nowMs] of bookFrom.entries()) await setBook(place.ledger, books[i], { origin: 'test', nowMs })
          const some = { samples: early % (events.samples.length + 1), tokens: early % (events.tokens.length + 1) }
          await place.step(events.samples.slice(some.samples), events.tokens.slice(some.tokens))
          await settle(place)
          await place.step(events.samples.slice(0, some.samples), events.tokens.slice(0, some.tokens))
          await settle(place)
          await assertReportsAgree(place)
          await assertRevisionAgrees(place, 0)
          for (const one of instants) seen.times.add(await assertExplained(place, events, one))
          seen.repriced += Number(await assertRepriced(place, books[2], repriced))
          await assertReportsAgree(place)
          await assertRevisionAgrees(place, 1)
          for (const one of instants) await assertExplained(place, events, one)
          const { differences, pending } = await place.verify(WHOLE)
          assert.deepEqual([differences, pending], [[], 0])
        } finally {
          await dispose()
        }
      }),
      { numRuns: runs },
    )
    // What a few runs draw is chance.
    if (runs < 20) return
    assert.ok(seen.repriced > runs / 4, `${seen.repriced} repricings changed money`)
    assert.deepEqual([...seen.times].sort(), ['assumed', 'covered', 'none', 'uncovered'])
  })
}

/** Commitments are looked for an hour a pass. */
async function settle(place: LedgerPlace): Promise<void> {
  const keeper = place.keeper()
  for (let i = 0; i < 4; i++) await keeper.pass()
  await place.settle(keeper)
}

interface Question extends Range {
  by: readonly Grouping[]
  step: Step
  idle: IdleWay
}

async function ask(place: LedgerPlace, question: Question, revision: number | null = null) {
  const query = costQuery(question) as CostQuery
  const reading = new CostReading({ ledger: place.ledger, progress: UNKNOWN_PROGRESS, latenessMs: 0 }, query, {
    revision,
  })
  const rows: CostRow[] = []
  for await (const row of reading.rows()) rows.push(row)
  const { totals } = await reading.tail()
  return { rows, totals }
}

type Amounts = Record<(typeof AMOUNT_FIELDS)[number], bigint>

function sumOf(rows: readonly CostRow[]): Amounts {
  const sum = Object.fromEntries(AMOUNT_FIELDS.map((field) => [field, 0n])) as Amounts
  for (const { amounts } of rows) for (const field of AMOUNT_FIELDS) sum[field] += amounts[field]
  return sum
}

/** Rows of the finest answer, added up as another question groups them. */
function regrouped(rows: readonly CostRow[], { by, step }: Question): Map<string, Amounts> {
  const lengthMs = step === 'all' ? Number.POSITIVE_INFINITY : { '1m': CELL_MS, '1h': HOUR_MS, '1d': DAY_MS }[step]
  const groups = Map.groupBy(rows, ({ startMs, key }) => {
    const start = step === 'all' ? 0 : floorTo(lengthMs, startMs)
    const gpu = by.includes('gpu') ? [key.host, key.gpu_index, key.gpu_uuid] : []
    const others = GROUPINGS.filter((one) => one !== 'gpu' && by.includes(one)).map((one) => key[one as 'model'])
    return JSON.stringify([start, ...others, ...gpu])
  })
  const sums = [...groups].map(([id, all]) => [id, sumOf(all)] as const)
  return new Map(sums.filter(([, sum]) => Object.values(sum).some((value) => value > 0n)).sort(byText))
}

const byText = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]) => (a < b ? -1 : 1)

async function assertReportsAgree(place: LedgerPlace): Promise<void> {
  for (const idle of ['own', 'spread'] as const) {
    const finestStep = idle === 'own' ? '1m' : '1h'
    const finest = await ask(place, { ...WHOLE, by: GROUPINGS, step: finestStep, idle })
    const own = await ask(place, { ...WHOLE, by: [], step: 'all', idle: 'own' })
    assert.deepEqual(sumOf(finest.rows), sumOf(own.rows))
    for (const step of idle === 'own' ? (['1m', '1h', '1d', 'all'] as const) : (['1h', '1d', 'all'] as const)) {
      for (const by of BY) {
        const question = { ...WHOLE, by, step, idle }
        const { rows, totals } = await ask(place, question)
        const text = JSON.stringify([by, step, idle])
        assert.deepEqual(regrouped(rows, question), regrouped(finest.rows, question), text)
        assert.deepEqual(totals, own.totals, text)
        for (const { amounts } of rows)
          assert.ok(
            AMOUNT_FIELDS.some((field) => amounts[field] > 0n),
            text,
          )
      }
    }
  }
  await assertSpreadIsCut(place)
}

/** An hour, and the part of it that has all of its money. */
async function assertSpreadIsCut(place: LedgerPlace): Promise<void> {
  for (const fromMs of [edge - HOUR_MS, edge]) {
    const minutes = await ask(place, { fromMs, toMs: fromMs + HOUR_MS, by: [], step: '1m', idle: 'own' })
    const lastMs = minutes.rows.at(-1)?.endMs
    if (lastMs === undefined || lastMs === fromMs + HOUR_MS) continue
    const question = { fromMs, by: GROUPINGS, step: 'all', idle: 'spread' } as const
    const [hour, cut] = [
      await ask(place, { ...question, toMs: fromMs + HOUR_MS }),
      await ask(place, { ...question, toMs: lastMs }),
    ]
    const shown = ({ rows }: typeof hour) => rows.map(({ key, amounts }) => ({ key, amounts }))
    assert.deepEqual(shown(cut), shown(hour))
  }
}

async function assertRevisionAgrees(place: LedgerPlace, revision: number): Promise<void> {
  for (const [step, idle] of [
    ['1m', 'own'],
    ['all', 'own'],
    ['all', 'spread'],
  ] as const) {
    const question = { ...WHOLE, by: GROUPINGS, step, idle }
    assert.deepEqual(await ask(place, question, revision), await ask(place, question), `${step}, ${idle}`)
  }
}

/** Sets a book and reprices to it; returns whether that changed anything. */
async function assertRepriced(
  place: LedgerPlace,
  book: PriceBookDocument,
  [a, b]: readonly [number, number],
): Promise<boolean> {
  const { ledger, nowMs } = place
  const range = { fromMs: floorTo(CELL_MS, Math.min(a, b)), toMs: floorTo(CELL_MS, Math.max(a, b)) + CELL_MS }
  const { version } = await setBook(ledger, book, { origin: 'test', nowMs })
  const everything = { ...WHOLE, by: GROUPINGS, step: '1m', idle: 'own' } as const
  const byName = { ...range, by: ['model', 'tenant'], step: 'all', idle: 'own' } as const
  const [wholeBefore, before] = [await ask(place, everything), await ask(place, byName)]
  const announced = await priceChange({ ledger, ...range, bookVersion: version.version })
  assertMoney(announced, 'before', before.rows)
  const { summary } = await reprice({ ledger, ...range, bookVersion: version.version, nowMs })
  assert.deepEqual({ ...summary, done: true }, { ...announced, done: true })
  await settle(place)
  const after = await ask(place, byName)
  assertMoney(announced, 'after', after.rows)
  assert.deepEqual(await ask(place, everything, 0), wholeBefore)
  return announced.before_nano_usd !== announced.after_nano_usd
}

function assertMoney(
  change: Awaited<ReturnType<typeof priceChange>>,
  side: 'before' | 'after',
  rows: readonly CostRow[],
): void {
  const ofChange = change.by.map(
    ({ model, tenant, ...money }) => [JSON.stringify([model, tenant]), moneyOf(money)] as const,
  )
  const ofReport = rows.map(
    ({ key, amounts }) =>
      [JSON.stringify([key.model, key.tenant]), `${totalNanoUsd(amounts)} ${amounts.uncovered_nano_usd}`] as const,
  )
  const hasMoney = ([, money]: readonly [string, string]) => money !== '0 0'
  assert.deepEqual(ofChange.filter(hasMoney).sort(byText), ofReport.filter(hasMoney).sort(byText))
  const sum = sumOf(rows)
  const total = sum.busy_nano_usd + sum.loaded_idle_nano_usd + sum.unallocated_nano_usd
  assert.equal(moneyOf(change), `${total} ${sum.uncovered_nano_usd}`)

  function moneyOf(money: MoneyChange): string {
    return `${money[`${side}_nano_usd`]} ${money[`${side}_uncovered_nano_usd`]}`
  }
}

/** Compares with the oracle, which knows nothing of src/; returns the kind of time. */
async function assertExplained(
  place: LedgerPlace,
  { samples, tokens }: History,
  at: { host: string | null; gpuIndex: number; atMs: number },
): Promise<string> {
  const { host, gpuIndex, atMs } = at
  const start = floorTo(MINUTE, atMs)
  const books = new PriceBookVersions(place.ledger)
  await books.refresh()
  const book = oracleBook(books.bookFor(start).data)
  const own = samples.filter((one) => one.host === host && one.gpu_index === gpuIndex)
  const { covered, gaps } = intervalsOf(firstOfInstant(own) as OracleSample[], gpuIndex, { book, start, host })
  const found = await explainPrice(place.store, { ...at, nowMs: place.nowMs })
  const holds = ({ at: fromMs, ms }: { at: number; ms: number }) => fromMs <= atMs && atMs < fromMs + ms
  const closed = covered.find(holds)
  const gap = gaps.find(({ interval }) => holds(interval))
  const hasTokens = tokens.some(
    (one) =>
      one.host === host &&
      (one.gpus ?? [one.gpu_index]).includes(gpuIndex) &&
      floorTo(MINUTE, one.ts.getTime()) === start &&
      one.prompt_tokens + one.completion_tokens + (one.requests ?? 1) > 0,
  )
  const time = closed !== undefined ? 'covered' : hasTokens ? 'assumed' : gap!.isPaid ? 'uncovered' : 'none'
  const text = `${JSON.stringify(at)} ${JSON.stringify(found)}`
  assert.equal(found.time, time, text)
  if (time === 'none') return time
  const expected = closed ?? gap!.interval
  assert.deepEqual([nanoUsd(found.price_per_hour_usd), found.price_kind], [expected.price, expected.kind], text)
  return time
}

/** Ascending; of several samples of an instant that with the smallest id. */
function firstOfInstant(samples: History['samples']): History['samples'] {
  const sorted = samples.toSorted((a, b) => a.ts.getTime() - b.ts.getTime() || (a._id < b._id ? -1 : 1))
  return sorted.filter((one, i) => i === 0 || sorted[i - 1]!.ts.getTime() !== one.ts.getTime())
}

function oracleBook(data: PriceBookDocument): OracleBook {
  return {
    defaults: defaultsOf(data).map((entry) => ({ fromMs: entry.from_ms, usdPerHour: entry.usd_per_hour })),
    weights: { input: 1, cached: 1, output: 1, ...data.weights },
    gapMs: (data.limits?.max_sample_gap_s ?? 90) * 1000,
    maxModels: data.limits?.max_models_per_cell ?? 32,
    maxTenants: data.limits?.max_tenants_per_cell ?? 100,
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
