// Random scenarios for the keeper's tests: events around a day's edge, some delivered twice, in any order; a keeper
// that dies at a given call; and the batch oracle, which shares no code with src/, held against what is stored.

import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { HOUR_MS } from '../../../src/domain/ledger/buckets.ts'
import { StoreError } from '../../../src/store/event-store.ts'
import type { LedgerStore } from '../../../src/store/ledger-store.ts'
import { batchLedger } from '../../oracle/batch-ledger.ts'
import { DEFAULT_USD, type LedgerPlace, MINUTE, sample, spanKey, T0, token } from './ledger-place.ts'

const hosts = [null, 'a', 'b'] as const

export interface Event {
  sample?: GpuDocument
  token?: TokenDocument
}

/** Some events over a day's edge, in batches, some delivered twice. */
export const scenario = fc.record({
  events: fc.array(
    fc.record({
      kind: fc.constantFrom('sample', 'sample', 'token'),
      atMs: fc
        .integer({ min: -10, max: 15 })
        .chain((minute) => fc.integer({ min: 0, max: 59_999 }).map((ms) => minute * MINUTE + ms)),
      host: fc.constantFrom(...hosts),
      gpu: fc.integer({ min: 0, max: 2 }),
      several: fc.boolean(),
      tokens: fc.integer({ min: 0, max: 5000 }),
      utilization: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined }),
      tenant: fc.constantFrom(undefined, 't1', 't2'),
      interval_s: fc.constantFrom(undefined, undefined, 0.5, 5, 60, 90.25, 240),
    }),
    { minLength: 1, maxLength: 40 },
  ),
  /** For each delivery: which event, and whether a keeper works after it, and which. */
  again: fc.array(fc.nat(), { maxLength: 15 }),
  order: fc.infiniteStream(fc.nat()),
})

export const edge = T0 + 12 * HOUR_MS

/** A ledger that fails for good after so many calls, as if the process that uses it had died there. */
export function dyingLedger(ledger: LedgerStore, calls: number): LedgerStore {
  let left = calls
  return new Proxy(ledger, {
    get:
      (target, method: keyof LedgerStore) =>
      (...args: unknown[]) => {
        if (--left < 0) throw new StoreError('died', { retriable: true })
        return (target[method] as (...all: unknown[]) => unknown)(...args)
      },
  })
}

export function eventOf(one: {
  kind: string
  atMs: number
  host: string | null
  gpu: number
  several: boolean
  tokens: number
  utilization: number | undefined
  tenant: string | undefined
  interval_s: number | undefined
}): Event {
  const { host, gpu, several, tokens, utilization, tenant, interval_s } = one
  const atMs = edge + one.atMs
  if (one.kind === 'sample') {
    const { utilization: _, ...plain } = sample(atMs, { host, gpu_index: gpu })
    return { sample: utilization === undefined ? plain : { ...plain, utilization } } as Event
  }
  const optional = { ...(tenant === undefined ? {} : { tenant }), ...(interval_s === undefined ? {} : { interval_s }) }
  const document = token(atMs, { host, prompt_tokens: tokens, ...optional })
  if (several) {
    const { gpu_index: _, ...rest } = document
    return { token: { ...rest, gpus: [gpu, 3] } as TokenDocument }
  }
  return { token: { ...document, gpu_index: gpu } }
}

/** The batch oracle, which shares no code with src/. `hosts`: the one name of each joined one. */
export async function assertOracle(
  place: LedgerPlace,
  samples: GpuDocument[],
  tokens: TokenDocument[],
  hosts: Record<string, string> = {},
): Promise<void> {
  const range = { fromMs: edge - 15 * MINUTE, toMs: edge + 20 * MINUTE }
  const oracle = batchLedger(samples as never, tokens as never, {
    book: {
      defaults: [{ fromMs: null, usdPerHour: DEFAULT_USD }],
      weights: { input: 1, cached: 1, output: 1 },
      gapMs: 90_000,
      maxModels: 32,
      maxTenants: 100,
      hosts,
      rules: [],
    },
    ...range,
  })
  const found = [...(await place.spans('minute', range.fromMs, range.toMs))].flatMap(([key, rows]) =>
    rows.map((row) => ({ key, ...row })),
  )
  const expected = oracle.map(({ start, host, ...row }) => ({ key: spanKey(start, host), ...row }))
  const order = (row: object) => JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? String(value) : value))
  const text = (rows: object[]) => rows.map((row) => order(sorted(row))).sort()
  assert.deepEqual(text(found), text(expected))
}

function sorted(row: object): object {
  return Object.fromEntries(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)))
}
