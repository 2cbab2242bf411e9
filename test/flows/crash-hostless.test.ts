// kill -9 between documents and marks, with events that name no host, and each new process infers another: it has seen
// samples that the dead one had not, or has another DEFAULT_HOST. The ledger must be that of the stored documents, to the
// token, in each round, and `pertoken verify` content; on both stores. HOSTLESS_ROUNDS=100 is the long dose.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { NewRecord } from '../../src/log/event-log.ts'
import { SqliteLog } from '../../src/log/sqlite/sqlite-log.ts'
import { ensureDefault } from '../../src/processor/prices/price-book-versions.ts'
import { goodSample, goodToken } from '../bad-records.ts'
import { mongoForTests } from '../servers/servers-for-tests.ts'
import { type Env, startScript, temporaryDirectory } from './harness.ts'
import { randomOf } from './ledger/ledger-events.ts'
import { embeddedPlace, keepAll, mongoPlace, type Place, verify } from './ledger/ledger-hands.ts'

const SCRIPT = new URL('./crashing-processor.ts', import.meta.url).pathname
const ROUNDS = Number(process.env['HOSTLESS_ROUNDS'] ?? 3)
const HOUR = 3_600_000
const T0 = Date.UTC(2026, 5, 1)
const NAMES = { TOPIC_METRIC: 'gpu', TOPIC_TOKEN: 'token', TOPIC_DEAD: 'dead', KAFKA_GROUP: 'g' }
const TOKENS = 40

/**
 * A round's histories. `samples`: hosts whose samples lie in the log beside the tokens: a process sees them only once it
 * has read them, the next one sees them from the start. `defaults`: DEFAULT_HOST of the process that dies, and of the
 * next.
 */
const HISTORIES: { title: string; samples: string[]; defaults: [string | null, string | null] }[] = [
  { title: 'an unseen fleet, then another default', samples: [], defaults: [null, 'second'] },
  { title: 'a default, then none and one host seen', samples: ['a'], defaults: ['first', null] },
  { title: 'another default', samples: [], defaults: ['first', 'second'] },
  { title: 'one host seen, then a default', samples: ['a'], defaults: [null, 'second'] },
  { title: 'two hosts seen with that GPU, then a default', samples: ['a', 'b'], defaults: [null, 'a'] },
  { title: 'a default that has samples, then none', samples: ['a', 'b'], defaults: ['b', null] },
]

async function fill(log: SqliteLog, round: number, history: (typeof HISTORIES)[number]): Promise<void> {
  const random = randomOf(round + 1)
  const fromMs = T0 + round * HOUR
  const some = (ms: number) => fromMs + Math.floor(random() * ms)
  const records = (count: number, one: (n: number) => object) =>
    Array.from({ length: count }, (_, n): NewRecord => ({ key: null, value: Buffer.from(JSON.stringify(one(n))) }))
  const counts = { prompt_tokens: 100_000, completion_tokens: 0 }
  const tokens = records(TOKENS, (n) =>
    goodToken(some(180_000), { host: undefined, gpu_index: round % 8, event_id: `${round}-${n}`, ...counts }),
  )
  const samples = history.samples.flatMap((host) =>
    records(6, (n) => goodSample(fromMs + n * 30_000, { host, gpu_index: round % 8 })),
  )
  // Samples without host get the default, too.
  samples.push(...records(3, () => goodSample(some(180_000), { host: undefined, gpu_index: round % 8 })))
  await log.append('token', tokens)
  await log.append('gpu', samples)
}

/** Tokens of the events and of the ledger's minutes, by minute and host. */
async function tokensOf({ store }: Place, fromMs: number): Promise<Record<'events' | 'ledger', Map<string, number>>> {
  const sums = { events: new Map<string, number>(), ledger: new Map<string, number>() }
  const add = (to: Map<string, number>, startMs: number, host: string | null, count: number) => {
    const key = `${new Date(startMs).toISOString()} ${host}`
    if (count > 0) to.set(key, (to.get(key) ?? 0) + count)
  }
  for await (const { ts, host, prompt_tokens } of store.readEvents('token', fromMs, fromMs + HOUR))
    add(sums.events, Math.floor(ts.getTime() / 60_000) * 60_000, host, prompt_tokens)
  for await (const { startMs, host, rows } of store.ledger.readBuckets('minute', fromMs, fromMs + HOUR))
    for (const row of rows) add(sums.ledger, startMs, host, Number(row.prompt_tokens))
  const inOrder = (map: Map<string, number>) => new Map([...map].toSorted())
  return { events: inOrder(sums.events), ledger: inOrder(sums.ledger) }
}

async function crashRound(
  t: TestContext,
  place: Place,
  round: number,
): Promise<{ hosts: Set<string>; moved: boolean }> {
  const history = HISTORIES[round % HISTORIES.length]!
  const log = new SqliteLog({ path: join(place.env['DATA_DIR']!, 'log.sqlite') })
  await fill(log, round, history)
  await log.close()
  const [before, after] = history.defaults.map(
    (host): Env => ({
      ...place.env,
      ...NAMES,
      ...(host === null ? {} : { DEFAULT_HOST: host }),
    }),
  ) as [Env, Env]
  const crashed = await startScript(t, [SCRIPT], { ...before, CRASH_AT: 'documents:1' })
  assert.equal(await crashed.ended(), -1, `it was killed: ${crashed.output}`)
  const finished = await startScript(t, [SCRIPT], after)
  assert.equal(await finished.ended(), 0, finished.output)
  await keepAll(place.store)
  const fromMs = T0 + round * HOUR
  const { events, ledger } = await tokensOf(place, fromMs)
  assert.deepEqual(ledger, events, `round ${round}: ${history.title}`)
  const total = [...events.values()].reduce((sum, count) => sum + count, 0)
  assert.equal(total, TOKENS * 100_000, `round ${round}: every event once`)
  const hosts = new Set([...events.keys()].map((key) => key.split(' ')[1]!))
  // The fault has happened where documents have another host than the second process gives.
  return { hosts, moved: [...hosts].some((host) => host !== (history.defaults[1] ?? 'null')) }
}

const mongo = await mongoForTests()
const PLACES: { name: string; skip: string | false; open: (t: TestContext) => Promise<Place> }[] = [
  { name: 'embedded', skip: false, open: async (t) => embeddedPlace(t, temporaryDirectory(t)) },
  { name: 'MongoDB', skip: mongo.skip, open: (t) => mongoPlace(t, mongo.url, temporaryDirectory(t)) },
]

for (const { name, skip, open } of PLACES) {
  test(`${ROUNDS} × kill -9 between documents and marks, hosts inferred otherwise afterwards: the ledger has every document (${name})`, {
    skip,
    timeout: 60_000 + ROUNDS * 30_000,
  }, async (t) => {
    const place = await open(t)
    const log = new SqliteLog({ path: join(place.env['DATA_DIR']!, 'log.sqlite') })
    await log.ensureTopics(
      Object.values(NAMES)
        .slice(0, 3)
        .map((topic) => ({ name: topic, partitions: 1 })),
    )
    await log.close()
    await place.store.prepare()
    await ensureDefault(place.store.ledger, 0.6, T0 - HOUR)
    let moved = 0
    for (let round = 0; round < ROUNDS; round++) if ((await crashRound(t, place, round)).moved) moved++
    t.diagnostic(`${moved} of ${ROUNDS} rounds stored other hosts than the second process gives`)
    assert.ok(moved >= ROUNDS / 4)
    const { differenceCount, pending } = verify(place, 0)
    assert.deepEqual([differenceCount, pending], [0, 0])
  })
}
