// The embedded log: the contract that the Kafka log keeps too, and what holds only for a file on one machine. Other
// processes are real ones: children that import the log and are killed with SIGKILL.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { LogError, type RecordBatch, type SubscribeOptions, type Subscription } from '../../src/log/event-log.ts'
import { SqliteLog, type SqliteLogOptions } from '../../src/log/sqlite/sqlite-log.ts'
import { eventLogContract } from './event-log.contract.ts'

const LOG_MODULE = new URL('../../src/log/sqlite/sqlite-log.ts', import.meta.url).href
const LIMIT_MS = 20_000
const TOPIC = 'token.usage.v1'

eventLogContract('sqlite', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-log-'))
  const path = join(directory, 'log.sqlite')
  const log = new SqliteLog({ path })
  return {
    log,
    another: async () => new SqliteLog({ path }),
    blockedRetryMs: 2000,
    vanish: async () => rmSync(directory, { recursive: true }),
    close: async () => {
      await log.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
})

test('what another process appends is read soon', { timeout: LIMIT_MS }, async (t) => {
  const { log, path } = await openLog(t)
  const subscription = subscribe(log)
  assert.deepEqual(await subscription.next(), [])
  await runChild(path, `await log.append('${TOPIC}', [{ key: null, value: Buffer.from('from a child') }])`)
  const [batch] = await readRecords(subscription, 1)
  assert.equal(String(batch!.records[0]!.value), 'from a child')
})

test('two processes that append at once get an offset each', { timeout: LIMIT_MS }, async (t) => {
  const { log, path } = await openLog(t)
  const append = `for (let i = 0; i < 200; i++) await log.append('${TOPIC}', [{ key: null, value: Buffer.from('x') }])`
  await Promise.all([runChild(path, append), runChild(path, append)])
  const records = (await readRecords(subscribe(log), 400)).flatMap((batch) => batch.records)
  assert.deepEqual(
    records.map((record) => record.offset),
    Array.from({ length: 400 }, (_, i) => i),
  )
})

test('a record is there when its append was acknowledged and the process then killed', {
  timeout: LIMIT_MS,
}, async (t) => {
  const { path } = await openLog(t)
  const child = startChild(
    path,
    `for (let i = 0; ; i++) {
       await log.append('${TOPIC}', [{ key: null, value: Buffer.from(String(i)) }])
       process.stdout.write(i + '\\n')
     }`,
  )
  let acknowledged = ''
  for await (const chunk of child.stdout!) {
    acknowledged += chunk
    if (acknowledged.length > 500) child.kill('SIGKILL')
  }
  const last = Number(acknowledged.split('\n').at(-2))
  const log = new SqliteLog({ path })
  const [description] = await log.describe([TOPIC])
  assert.ok(description!.partitions[0]!.endOffset > last, `${last} was acknowledged`)
  const records = (await readRecords(subscribe(log), last + 1)).flatMap((batch) => batch.records)
  assert.deepEqual(
    records.slice(0, last + 1).map((record) => Number(record.value)),
    [...Array(last + 1).keys()],
  )
  await log.close()
})

test('the log prunes what every group has committed, oldest first, and never uses an offset twice', async (t) => {
  const { log, path } = await openLog(t, { maxBytes: 1_000_000 })
  const subscription = subscribe(log)
  const value = Buffer.alloc(1000)
  let appended = 0
  for (let round = 0; round < 50; round += 1) {
    await log.append(
      TOPIC,
      Array.from({ length: 100 }, () => ({ key: null, value })),
    )
    appended += 100
    const batch = (await readRecords(subscription, 100)).at(-1)!
    assert.equal(batch.nextOffset, appended)
    await subscription.commit([{ topic: TOPIC, topicId: batch.topicId, partition: 0, offset: appended }])
  }
  const [before] = (await log.describe([TOPIC]))[0]!.partitions
  assert.ok(
    before!.earliestOffset > 3000 && before!.earliestOffset < appended,
    `${before!.earliestOffset} is the earliest`,
  )
  await log.close()

  // All that is left goes too: the next offset must still be known.
  const database = new DatabaseSync(path)
  database.exec('DELETE FROM records_1')
  database.close()
  const reopened = new SqliteLog({ path })
  t.after(() => reopened.close())
  await reopened.append(TOPIC, [{ key: null, value }])
  const [after] = (await reopened.describe([TOPIC]))[0]!.partitions
  assert.deepEqual([after!.earliestOffset, after!.endOffset], [appended, appended + 1])
})

test('a log whose group is behind is full, names the group, and accepts records again when it has committed', async (t) => {
  const { log } = await openLog(t, { maxBytes: 300_000 })
  const append = () =>
    log.append(
      TOPIC,
      Array.from({ length: 50 }, () => ({ key: null, value: Buffer.alloc(2000) })),
    )
  const fill = async () => {
    for (let i = 0; i < 100; i += 1) await append()
  }
  const isFull = (reason: RegExp) => (error: unknown) => {
    assert.ok(error instanceof LogError)
    assert.equal(error.retriable, true)
    assert.match(error.message, /^Log is full: it holds its bound of 300000 bytes/)
    assert.match(error.message, reason)
    return true
  }
  await assert.rejects(fill(), isFull(/no group has read/))
  const subscription = subscribe(log)
  const batches: RecordBatch[] = []
  for (let answer = await subscription.next(); answer.length > 0; answer = await subscription.next())
    batches.push(...answer)
  await assert.rejects(append(), isFull(/group "pertoken" is behind in token.usage.v1 partition 0/))
  const { topicId, nextOffset } = batches.at(-1)!
  await subscription.commit([{ topic: TOPIC, topicId, partition: 0, offset: nextOffset }])
  await append()
})

test('a flood in a topic that may lose records takes no room from the others, and nothing else is lost', async (t) => {
  let dropped = 0
  const dropOldest = {
    topics: ['dead.letter.v1'],
    onDropped: (_topic: string, records: number) => (dropped += records),
  }
  const { log } = await openLog(t, { maxBytes: 300_000, dropOldest })
  await log.ensureTopics([{ name: 'dead.letter.v1', partitions: 1 }])
  const append = (topic: string) =>
    log.append(
      topic,
      Array.from({ length: 50 }, () => ({ key: null, value: Buffer.alloc(2000) })),
    )
  await append(TOPIC)
  for (let i = 0; i < 30; i += 1) await append('dead.letter.v1')
  await append(TOPIC)
  assert.ok(dropped >= 1300, `${dropped} were dropped`)
  const [ours, dead] = await log.describe([TOPIC, 'dead.letter.v1'])
  assert.deepEqual([ours!.partitions[0]!.earliestOffset, ours!.partitions[0]!.endOffset], [0, 100])
  assert.equal(dead!.partitions[0]!.earliestOffset, dropped)
})

test('a reader that was overtaken by pruning continues at the first record that is left', async (t) => {
  const { log, path } = await openLog(t)
  await log.append(
    TOPIC,
    Array.from({ length: 10 }, (_, i) => ({ key: null, value: Buffer.from(String(i)) })),
  )
  const database = new DatabaseSync(path)
  database.exec('DELETE FROM records_1 WHERE offset < 6')
  database.close()
  const batches = await readRecords(subscribe(log), 4)
  assert.equal(batches[0]!.fromOffset, 0)
  assert.deepEqual(
    batches.flatMap((batch) => batch.records).map(({ offset }) => offset),
    [6, 7, 8, 9],
  )
})

test('a stand-by takes over when the owner is killed, and a frozen owner learns that it lost', {
  timeout: LIMIT_MS,
}, async (t) => {
  const { log, path } = await openLog(t, { leaseMs: 500 })
  const child = startChild(
    path,
    `const subscription = log.subscribe({ group: 'pertoken', topics: ['${TOPIC}'], signal: new AbortController().signal,
       onAssigned: async (partitions) => partitions.map(() => ({ offset: 0 })),
       onRevoked: (partitions) => process.stdout.write('revoked ' + partitions.length + '\\n') })
     while (!subscription.ownsAll) await subscription.next()
     process.stdout.write('owner\\n')
     for (;;) await subscription.next()`,
    { leaseMs: 500 },
  )
  const nextLine = linesOf(child)
  assert.equal(await nextLine(), 'owner')
  const standBy = subscribe(log)
  assert.deepEqual(await standBy.next(), [])
  assert.equal(standBy.ownsAll, false)
  assert.deepEqual(standBy.assigned, [])
  child.kill('SIGSTOP')
  await log.append(TOPIC, [{ key: null, value: Buffer.from('x') }])
  await readRecords(standBy, 1)
  assert.equal(standBy.ownsAll, true)
  child.kill('SIGCONT')
  assert.equal(await nextLine(), 'revoked 1')
  // The other way about: what the child owns again after we left is ours after its death.
  await standBy.close()
  await log.append(TOPIC, [{ key: null, value: Buffer.from('y') }])
  const again = subscribe(log)
  child.kill('SIGKILL')
  await readRecords(again, 2)
  await again.close()
})

test('a member waits for a topic that is created later', async (t) => {
  const { log } = await openLog(t)
  const subscription = subscribe(log, { topics: [TOPIC, 'later'] })
  await subscription.next()
  assert.deepEqual(
    subscription.problems.map(({ code }) => code),
    ['topic_missing'],
  )
  assert.equal(subscription.ownsAll, false)
  await log.ensureTopics([{ name: 'later', partitions: 2 }])
  await log.append('later', [{ key: null, value: Buffer.from('x') }])
  await readRecords(subscription, 1)
  assert.equal(subscription.ownsAll, true)
  assert.deepEqual(subscription.problems, [])
})

test('a start that fails is a problem, and is requested again', async (t) => {
  const { log } = await openLog(t)
  await log.append(TOPIC, [{ key: null, value: Buffer.from('x') }])
  let calls = 0
  const subscription = subscribe(log, {
    onAssigned: async (partitions) => {
      calls += 1
      if (calls === 1) throw new Error('Store does not answer')
      return partitions.map(() => ({ offset: 0 }))
    },
  })
  await subscription.next()
  assert.deepEqual(subscription.problems, [{ code: 'stalled', message: 'Store does not answer' }])
  await readRecords(subscription, 1)
  assert.deepEqual([calls, subscription.problems], [2, []])
})

test('keys go where a Kafka producer would put them', async (t) => {
  const { log } = await openLog(t)
  await log.ensureTopics([{ name: 'keyed', partitions: 12 }])
  // From kafka-clients 3.9: toPositive(murmur2(key)) % 12.
  const expected = [
    ['21', -973932308 & 0x7fffffff],
    ['foobar', -790332482 & 0x7fffffff],
  ] as const
  for (const [key] of expected) await log.append('keyed', [{ key, value: null }])
  const ends = (await log.describe(['keyed']))[0]!.partitions.filter(({ endOffset }) => endOffset > 0)
  assert.deepEqual(
    ends.map(({ partition }) => partition),
    expected.map(([, hash]) => hash % 12).toSorted((a, b) => a - b),
  )
})

test('appends of one turn share a transaction, and one that is wrong fails alone', async (t) => {
  const { log } = await openLog(t)
  const record = { key: null, value: Buffer.from('x') }
  const results = await Promise.allSettled([
    log.append(TOPIC, [record]),
    log.append('missing', [record]),
    log.append(TOPIC, [{ ...record, partition: 7 }]),
    log.append(TOPIC, [record, record]),
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected', 'fulfilled'],
  )
  assert.equal((await log.describe([TOPIC]))[0]!.partitions[0]!.endOffset, 3)
})

test('a file that is no log, and one of a newer format, are refused for good', async (t) => {
  const directory = makeDirectory(t)
  const garbage = join(directory, 'garbage.sqlite')
  writeFileSync(garbage, 'this is not a database, it only has the name of one'.repeat(100))
  const newer = join(directory, 'newer.sqlite')
  const database = new DatabaseSync(newer)
  database.exec('PRAGMA user_version = 99')
  database.close()
  for (const [path, says] of [
    [garbage, /is damaged/],
    [newer, /has format 99, newer than 1/],
  ] as const) {
    const log = new SqliteLog({ path })
    await assert.rejects(log.ping(), (error: unknown) => {
      assert.ok(error instanceof LogError)
      assert.equal(error.retriable, false)
      assert.match(error.message, says)
      return true
    })
    await log.close()
  }
})

function makeDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-log-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A log with TOPIC of one partition. */
async function openLog(
  t: TestContext,
  options: Partial<SqliteLogOptions> = {},
): Promise<{ log: SqliteLog; path: string }> {
  const path = join(makeDirectory(t), 'log.sqlite')
  const log = new SqliteLog({ path, ...options })
  t.after(() => log.close())
  await log.ensureTopics([{ name: TOPIC, partitions: 1 }])
  return { log, path }
}

function subscribe(log: SqliteLog, options: Partial<SubscribeOptions> = {}): Subscription {
  return log.subscribe({
    group: 'pertoken',
    topics: [TOPIC],
    onAssigned: async (partitions) => partitions.map(() => ({ offset: 0 })),
    signal: new AbortController().signal,
    ...options,
  })
}

/** Batches until at least so many records have come. */
async function readRecords(subscription: Subscription, count: number): Promise<RecordBatch[]> {
  const batches: RecordBatch[] = []
  const startedMs = performance.now()
  for (let got = 0; got < count; ) {
    assert.ok(performance.now() - startedMs < LIMIT_MS, `${got} of ${count} records came`)
    for (const batch of await subscription.next()) {
      batches.push(batch)
      got += batch.records.length
    }
  }
  return batches
}

function startChild(path: string, script: string, options: Partial<SqliteLogOptions> = {}): ChildProcess {
  const source = `import { SqliteLog } from ${JSON.stringify(LOG_MODULE)}
    const log = new SqliteLog(${JSON.stringify({ path, ...options })})
    ${script}
    await log.close()`
  return spawn(process.execPath, ['--input-type=module', '--eval', source], { stdio: ['ignore', 'pipe', 'inherit'] })
}

async function runChild(path: string, script: string): Promise<void> {
  const [code] = await once(startChild(path, script), 'exit')
  assert.equal(code, 0)
}

/** Returns a function that resolves with the child's next line. */
function linesOf(child: ChildProcess): () => Promise<string> {
  const chunks = child.stdout![Symbol.asyncIterator]()
  let text = ''
  return async () => {
    while (!text.includes('\n')) {
      const { value, done } = await chunks.next()
      assert.ok(!done, 'the child ended')
      text += value
    }
    const line = text.slice(0, text.indexOf('\n'))
    text = text.slice(line.length + 1)
    return line
  }
}
