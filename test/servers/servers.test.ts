// The servers that other tests stand on: each starts, answers, and comes back with its data on the same port after a
// stop and after a kill; and nothing is left running or lying about, however the process that started them ends.
// Start-up costs seconds, so one instance of each kind serves all of its tests.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { type Collection, MongoClient } from 'mongodb'
import { type KafkaServer, startKafka } from './kafka/kafka.ts'
import { askKafka, createTopic, deleteTopic, listOffsets } from './kafka/kafka-admin.ts'
import { untilAnswered } from './managed-server.ts'
import { type MongodServer, startMongod } from './mongod.ts'
import { sealDirectory, verifyDirectory } from './server-cache.ts'
import {
  kafkaForTests,
  mongoForTests,
  skipWithoutKafka,
  skipWithoutMongod,
  uniqueName,
  withDatabase,
} from './servers-for-tests.ts'

const noKafka = (await skipWithoutKafka('3.9')) || (await skipWithoutKafka('4.1'))
const noMongod = await skipWithoutMongod()

for (const [version, mode] of [
  ['3.9', 'kraft'],
  ['4.1', 'kraft'],
  ['3.9', 'zookeeper'],
] as const) {
  describe(`Kafka ${version} with ${mode}`, { skip: noKafka }, () => {
    let kafka: KafkaServer
    const topic = uniqueName('kept')
    before(async () => {
      kafka = await startKafka({ version, mode })
    })
    after(() => kafka?.close())

    test('answers and makes topics that can be written to at once', async () => {
      await createTopic(kafka.bootstrap, topic, { partitions: 3 })
      const ranges = await listOffsets(kafka.bootstrap, topic)
      assert.deepEqual(
        ranges.map(({ partition, earliest, latest }) => [partition, earliest, latest]),
        [0, 1, 2].map((partition) => [partition, 0n, 0n]),
      )
    })

    test('comes back with its topics on the same port after a stop and after a kill', async () => {
      for (const end of ['stop', 'kill'] as const) {
        const { bootstrap, pid } = kafka
        await kafka[end]()
        assert.equal((await groupOf(pid)).includes(pid), false)
        await assert.rejects(askKafka(bootstrap))
        await kafka.start()
        assert.equal(kafka.bootstrap, bootstrap)
        assert.notEqual(kafka.pid, pid)
        // The broker answers before each partition has its leader back.
        await untilAnswered(async () => assert.equal((await listOffsets(bootstrap, topic)).length, 3), 20_000)
      }
      await untilAnswered(() => deleteTopic(kafka.bootstrap, topic), 20_000)
    })

    test('leaves no process of its group when it is closed', async () => {
      const { pid } = kafka
      await kafka.close()
      await untilAnswered(async () => assert.deepEqual(await groupOf(pid), []), 10_000)
    })
  })
}

for (const mode of ['standalone', 'replica-set'] as const) {
  describe(`mongod as ${mode}`, { skip: noMongod }, () => {
    let mongod: MongodServer
    before(async () => {
      mongod = await startMongod({ mode })
    })
    after(() => mongod?.close())

    test('comes back with its documents on the same port after a stop and after a kill', async () => {
      await inCollection(mongod.url, (kept) => kept.insertOne({ n: 1 }, { writeConcern: { w: 'majority', j: true } }))
      for (const end of ['stop', 'kill'] as const) {
        const { url, pid } = mongod
        await mongod[end]()
        assert.equal((await groupOf(pid)).includes(pid), false)
        await mongod.start()
        assert.equal(mongod.url, url)
        assert.equal(await inCollection(url, (kept) => kept.countDocuments()), 1)
      }
    })

    test('answers nothing while it is paused and goes on when it is resumed', async () => {
      await mongod.pause()
      const counted = inCollection(mongod.url, (kept) => kept.countDocuments())
      const first = await Promise.race([counted, new Promise((resolve) => setTimeout(resolve, 300, 'nothing'))])
      assert.equal(first, 'nothing')
      mongod.resume()
      assert.equal(await counted, 1)
    })

    test('leaves no process of its group when it is closed', async () => {
      const { pid } = mongod
      await mongod.close()
      await untilAnswered(async () => assert.deepEqual(await groupOf(pid), []), 10_000)
    })
  })
}

test('a replica set takes transactions', { skip: noMongod }, async () => {
  const mongod = await startMongod({ mode: 'replica-set' })
  const client = new MongoClient(mongod.url)
  try {
    await client.withSession((session) =>
      session.withTransaction(() => client.db('t').collection('t').insertOne({}, { session })),
    )
  } finally {
    await client.close()
    await mongod.close()
  }
})

describe('a test process that ends', { skip: noMongod }, () => {
  const ends: [string, string, NodeJS.Signals | undefined][] = [
    ['by SIGKILL', '', 'SIGKILL'],
    ['by SIGKILL while its server is paused', 'await server.pause()', 'SIGKILL'],
    ['by SIGTERM', '', 'SIGTERM'],
    ['by SIGINT', '', 'SIGINT'],
    ['by an uncaught error', "setTimeout(() => { throw new Error('meant to be thrown') }, 20)", undefined],
    ['because nothing is left to do', '', undefined],
  ]
  for (const [how, statement, signal] of ends) {
    test(`${how} leaves neither a server nor its data behind`, async () => {
      const temporary = await mkdtemp(join(tmpdir(), 'pertoken-orphan-'))
      const { pid } = await runUntilItEnds(temporary, statement, signal)
      await untilAnswered(async () => {
        assert.deepEqual(await groupOf(pid), [], 'the server or its watcher still runs')
        assert.deepEqual(await readdir(temporary), [])
      }, 15_000)
      await rm(temporary, { recursive: true })
    })
  }
})

test('a start that fails shows the end of the log', { skip: noMongod }, async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'pertoken-broken-'))
  await writeFile(join(dataDir, 'storage.bson'), 'not what mongod wrote')
  await assert.rejects(
    startMongod({ mode: 'standalone', dataDir }),
    /^Error: Cannot start mongod: ended with .*\n.*storage/s,
  )
  await rm(dataDir, { recursive: true })
})

test('a port that is taken is an error that says so, when it was asked for', { skip: noMongod }, async () => {
  const first = await startMongod({ mode: 'standalone' })
  await assert.rejects(startMongod({ mode: 'standalone', port: first.port }), /already in use/)
  await first.close()
})

test('an installed file that was changed, added or removed is found', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pertoken-cache-'))
  await assert.rejects(verifyDirectory(directory, {}), /not installed; run node test\/servers\/install.ts/)
  await writeFile(join(directory, 'a.jar'), 'a')
  await assert.rejects(sealDirectory(directory, { 'a.jar': '00' }), /Cannot accept download of "a.jar"/)
  await sealDirectory(directory, {})
  await verifyDirectory(directory, {})
  await assert.rejects(verifyDirectory(directory, { 'a.jar': '00' }), /not the checksum of versions.ts/)
  await writeFile(join(directory, 'a.jar'), 'b')
  await assert.rejects(verifyDirectory(directory, {}), /a.jar has changed/)
  await appendFile(join(directory, 'a.jar'), 'b')
  await assert.rejects(verifyDirectory(directory, {}), /a.jar has 2 bytes, not 1/)
  await rm(join(directory, 'a.jar'))
  await assert.rejects(verifyDirectory(directory, {}), /a.jar is missing/)
  await writeFile(join(directory, 'b.jar'), '')
  await assert.rejects(verifyDirectory(directory, {}), /b.jar was not installed/)
  await rm(directory, { recursive: true })
})

test('servers that are given in the environment are used as they are', async (t) => {
  setForTest(t, 'TEST_KAFKA_BOOTSTRAP', 'kafka:9092')
  setForTest(t, 'TEST_MONGO_URL', 'mongodb://mongo:27017/x')
  assert.deepEqual(await kafkaForTests(), { skip: false, bootstrap: 'kafka:9092', server: undefined })
  assert.deepEqual(await mongoForTests(), { skip: false, url: 'mongodb://mongo:27017/x', server: undefined })
})

test('the database of a URL is replaced and the rest of it kept', () => {
  assert.equal(withDatabase('mongodb://h:1', 'db'), 'mongodb://h:1/db')
  assert.equal(withDatabase('mongodb://h:1/', 'db'), 'mongodb://h:1/db')
  assert.equal(withDatabase('mongodb://h:1/?directConnection=true', 'db'), 'mongodb://h:1/db?directConnection=true')
  assert.equal(withDatabase('mongodb://u:p@a:1,b:2/old?w=1', 'db'), 'mongodb://u:p@a:1,b:2/db?w=1')
})

test('a server that is not installed skips without CI and throws with it', async (t) => {
  setForTest(t, 'PERTOKEN_TEST_CACHE', join(tmpdir(), uniqueName('no-such-cache')))
  setForTest(t, 'CI', '')
  assert.match(String((await mongoForTests({ owned: true })).skip), /run node test\/servers\/install.ts/)
  setForTest(t, 'CI', 'true')
  await assert.rejects(mongoForTests({ owned: true }), { name: 'NotInstalled' })
})

function setForTest(t: TestContext, name: string, value: string): void {
  const before = process.env[name]
  process.env[name] = value
  t.after(() => {
    if (before === undefined) delete process.env[name]
    else process.env[name] = before
  })
}

async function inCollection<T>(url: string, use: (kept: Collection) => Promise<T>): Promise<T> {
  const client = new MongoClient(url)
  try {
    return await use(client.db('test').collection('kept'))
  } finally {
    await client.close()
  }
}

/**
 * A process of its own that starts a mongod below `temporary`, does `statement`, and is ended by `signal` or by itself.
 */
async function runUntilItEnds(temporary: string, statement: string, signal: NodeJS.Signals | undefined) {
  const source = `
    import { startMongod } from ${JSON.stringify(join(import.meta.dirname, 'mongod.ts'))}
    const server = await startMongod({ mode: 'standalone' })
    ${statement}
    process.stdout.write(server.pid + '\\n')
    ${signal === undefined ? '' : 'setInterval(() => {}, 1000)'}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    env: { ...process.env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const exited = once(child, 'exit')
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const pid = Number(line.toString())
  assert.ok(pid > 0)
  if (signal !== undefined) {
    assert.equal((await groupOf(pid)).length, 2, 'a server and its watcher')
    child.kill(signal)
  }
  await exited
  return { pid }
}

/**
 * Processes of the group that a server leads (itself, its watcher); a zombie that its parent has not fetched is none.
 */
async function groupOf(leader: number): Promise<number[]> {
  const members: number[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
    // pid (name) state parent group …
    const [state, , group] = line.slice(line.lastIndexOf(')') + 2).split(' ')
    if (Number(group) === leader && state !== 'Z') members.push(Number(pid))
  }
  return members
}
