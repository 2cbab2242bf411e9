// A place for tests of the keeper and what is around it: an empty store on SQLite or MongoDB with a price book, a clock
// that tests turn, events as short as tests want them, a processor's step, and the ledger that should have come out:
// computeCell over everything, and the batch oracle. No test here waits for time to pass.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { ownEventId } from '../../../src/domain/events/event-id.ts'
import { type BucketLevel, DAY_MS, floorTo, HOUR_MS, TouchedCells } from '../../../src/domain/ledger/buckets.ts'
import { computeCell } from '../../../src/domain/ledger/cell.ts'
import { compareText } from '../../../src/domain/ledger/rows.ts'
import { partsOf } from '../../../src/domain/ledger/token-parts.ts'
import { totalsOfEvent } from '../../../src/domain/ledger/token-totals.ts'
import type { CellRow } from '../../../src/domain/ledger/types.ts'
import type { PriceBook } from '../../../src/domain/prices/price-book.ts'
import { touchExisting } from '../../../src/processor/ingest/step.ts'
import { Keeper, type KeeperOptions } from '../../../src/processor/ledger/keeper.ts'
import { ensureDefault, PriceBookVersions } from '../../../src/processor/prices/price-book-versions.ts'
import { type VerifyOptions, type VerifyResult, verify } from '../../../src/processor/recompute/verify.ts'
import type { Logger } from '../../../src/runtime/logger.ts'
import type { EventStore } from '../../../src/store/event-store.ts'
import type { LedgerStore } from '../../../src/store/ledger-store.ts'
import { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import { sumRows } from '../../report/rows.ts'

/** Start of an hour: what the tests' events lie after. */
export const T0 = Date.UTC(2026, 2, 31, 12)
export const MINUTE = 60_000
/** A whole number of 10⁻⁹ USD a minute and half of it. */
export const DEFAULT_USD = 0.6

export type Store = EventStore & { ledger: LedgerStore }

/** A log that keeps its lines. */
export class Lines implements Logger {
  readonly lines: { level: string; fields: object; message: string }[] = []
  debug = (fields: object, message: string) => void this.lines.push({ level: 'debug', fields, message })
  info = (fields: object, message: string) => void this.lines.push({ level: 'info', fields, message })
  warn = (fields: object, message: string) => void this.lines.push({ level: 'warn', fields, message })
  error = (fields: object, message: string) => void this.lines.push({ level: 'error', fields, message })
}

/** An empty embedded store in a directory of its own. */
export function openSqlite(): { store: SqliteStore; dispose: () => Promise<void> } {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-ledger-'))
  const store = new SqliteStore({ path: join(directory, 'store.sqlite'), synchronous: 'NORMAL' })
  return {
    store,
    dispose: async () => {
      await store.close()
      rmSync(directory, { recursive: true })
    },
  }
}

export class LedgerPlace {
  readonly store: Store
  readonly ledger: LedgerStore
  readonly log = new Lines()
  nowMs = T0 + 24 * HOUR_MS

  private constructor(store: Store) {
    this.store = store
    this.ledger = store.ledger
  }

  /** With a first price book: the default since ever. */
  static async on(store: Store): Promise<LedgerPlace> {
    await store.prepare()
    const place = new LedgerPlace(store)
    await ensureDefault(store.ledger, DEFAULT_USD, T0 - 365 * DAY_MS)
    return place
  }

  now = (): number => this.nowMs

  /** A keeper for which everything that ended is due at once. */
  keeper(options: Partial<KeeperOptions> = {}, ledger = this.ledger): Keeper {
    return new Keeper(ledger, new PriceBookVersions(ledger), {
      log: this.log,
      now: this.now,
      random: () => 0.5,
      settleMs: 0,
      maxWaitMs: 0,
      jitterMs: 0,
      rollupSettleMs: 0,
      rollupMaxWaitMs: 0,
      ...options,
    })
  }

  /** What a processor does with a batch: documents, then one mark for each minute. */
  async step(samples: readonly GpuDocument[], tokens: readonly TokenDocument[]): Promise<void> {
    const { existing } = await this.store.writeDocuments(samples, tokens)
    const cells = touchedBy(samples, tokens)
    touchExisting(cells, existing)
    await this.store.ledger.insertMarks('minute', cells.dirtyMinutes(), this.nowMs)
  }

  /** Runs a keeper until nothing is due. */
  async settle(keeper = this.keeper()): Promise<Keeper> {
    for (let i = 0; i < 100; i++) {
      const { minutes, hours, days } = await keeper.pass()
      if (minutes + hours + days === 0) return keeper
    }
    return assert.fail('The keeper does not come to an end')
  }

  verify(options: Partial<VerifyOptions> = {}): Promise<VerifyResult> {
    const { ledger, nowMs } = this
    return verify({ ledger, nowMs, fromMs: T0 - DAY_MS, toMs: T0 + DAY_MS, ...options })
  }

  /** Stored spans of a level that have rows, as `start host` → rows. */
  async spans(level: BucketLevel, fromMs = T0 - DAY_MS, toMs = T0 + 2 * DAY_MS): Promise<Map<string, CellRow[]>> {
    const spans = new Map<string, CellRow[]>()
    for await (const { startMs, host, rows } of this.ledger.readBuckets(level, fromMs, toMs)) {
      if (rows.length > 0) spans.set(spanKey(startMs, host), rows)
    }
    return spans
  }

  /** Asserts that minutes, hours and days are exactly what these events come to. */
  async assertLedger(
    samples: readonly GpuDocument[],
    tokens: readonly TokenDocument[],
    bookOf: (minuteMs: number) => PriceBook,
  ): Promise<void> {
    const expected = expectedLedger(samples, tokens, bookOf)
    for (const level of ['minute', 'hour', 'day'] as const) {
      assert.deepEqual(await this.spans(level), expected[level], `${level}s`)
    }
  }
}

export function spanKey(startMs: number, host: string | null): string {
  return `${new Date(startMs).toISOString()} ${host ?? '-'}`
}

export function touchedBy(samples: readonly GpuDocument[], tokens: readonly TokenDocument[]): TouchedCells {
  const cells = new TouchedCells()
  for (const sample of samples) cells.touchAround(sample.host, sample.ts.getTime())
  for (const token of tokens) cells.touchToken(token)
  return cells
}

/** The ledger over all events at once: every cell that any event touches. */
export function expectedLedger(
  samples: readonly GpuDocument[],
  tokens: readonly TokenDocument[],
  bookOf: (minuteMs: number) => PriceBook,
): Record<BucketLevel, Map<string, CellRow[]>> {
  const levels: Record<BucketLevel, Map<string, CellRow[]>> = { minute: new Map(), hour: new Map(), day: new Map() }
  const cells = touchedBy(samples, tokens)
    .dirtyMinutes()
    .flatMap(({ startMs, hosts }) => hosts.toSorted(compareText).map((host) => ({ startMs, host })))
  const parts = tokens.flatMap(partsOf)
  for (const { startMs, host } of cells) {
    const mine = parts.filter(
      (one) => one.host === host && one.ts.getTime() >= startMs && one.ts.getTime() < startMs + MINUTE,
    )
    const near = samples.filter((one) => one.host === host && Math.abs(one.ts.getTime() - startMs) < 10 * MINUTE)
    const tokenTotals = mine.map(totalsOfEvent)
    const { rows } = computeCell({ startMs, host, samples: near, tokenTotals, book: bookOf(startMs) })
    if (rows.length > 0) levels.minute.set(spanKey(startMs, host), rows)
    for (const [level, lengthMs] of [['hour', HOUR_MS] as const, ['day', DAY_MS] as const]) {
      if (rows.length === 0) continue
      const key = spanKey(floorTo(lengthMs, startMs), host)
      levels[level].set(key, sumRows([...(levels[level].get(key) ?? []), ...rows]))
    }
  }
  return { minute: levels.minute, hour: levels.hour, day: levels.day }
}

let count = 0

export function token(atMs: number, fields: Partial<TokenDocument> = {}): TokenDocument {
  return {
    _id: ownEventId('test', `t${count++}`),
    ts: new Date(atMs),
    host: 'a',
    gpu_index: 0,
    model: 'm1',
    prompt_tokens: 100,
    completion_tokens: 20,
    latency_ms: 5,
    cost_per_token: null,
    tokens_per_second: null,
    price_per_hour_usd: 1,
    window_s: 30,
    ...fields,
  } as TokenDocument
}

export function sample(atMs: number, fields: Partial<GpuDocument> = {}): GpuDocument {
  return {
    _id: ownEventId('test', `s${count++}`),
    ts: new Date(atMs),
    host: 'a',
    gpu_index: 0,
    utilization: 0.5,
    ...fields,
  } as GpuDocument
}
