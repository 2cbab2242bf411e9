// What doctor says, against real servers: for everything that it can name there is a test that breaks just that, and
// the one line with the remedy is there; mended, it is gone. Doctor runs in this process where its clock or speed
// matters, as a process of its own where the machine is what is broken.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Consumer, Producer } from '@platformatic/kafka'
import { MongoClient } from 'mongodb'
import { examine } from '../../src/cli/commands/doctor.ts'
import { loadConfig } from '../../src/cli/config.ts'
import { type Disk, diskFindings } from '../../src/cli/doctor/disk-findings.ts'
import type { Finding } from '../../src/cli/doctor/finding.ts'
import { checkSettings } from '../../src/cli/doctor/settings-findings.ts'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { MongoStore } from '../../src/store/mongo/mongo-store.ts'
import { type Env, pertoken, temporaryDirectory, until } from '../flows/harness.ts'
import { makeAuthority } from '../servers/certificates.ts'
import { startKafka } from '../servers/kafka/kafka.ts'
import { createTopic } from '../servers/kafka/kafka-admin.ts'
import { freePort, makeDataDirectory } from '../servers/managed-server.ts'
import { startMongod } from '../servers/mongod.ts'
import { skipWithoutKafka, skipWithoutMongod, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { onSmallDisk } from '../small-disk.ts'

const BIN = new URL('../../bin/pertoken.js', import.meta.url).pathname
const MINUTE_MS = 60_000
const CONTAINER = '3f2a1b4c5d6e'
const PUBLISHING = { GPU_SEED: new URL('../../examples/gpu_seed.json', import.meta.url).pathname }
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

const directory = await makeDataDirectory('doctor', undefined)
const skip = (await skipWithoutKafka('3.9')) || (await skipWithoutMongod())
const limit = { skip, timeout: 60_000 }
const { kafka, mongod } = skip === false ? await startServers() : (undefined as never)
after(async () => {
  if (skip === false) await Promise.all([kafka.close(), mongod.close()])
  await directory.remove()
})

async function startServers() {
  const authority = await makeAuthority(directory.path, 'mongo')
  const certificate = await authority.sign('mongod', { hosts: ['127.0.0.1'] })
  const [kafka, mongod] = await Promise.all([
    // With a listener that advertises a port of its own: a proxy's, which can be taken away.
    startKafka({ version: '3.9', mode: 'kraft', proxied: true, dataDir: join(directory.path, 'kafka') }),
    startMongod({ mode: 'standalone', secured: { certificate, ca: authority.ca } }),
  ])
  return { kafka, mongod }
}

/** Settings of a well deployment: topics and a database of the test's own. */
async function wellSettings(): Promise<Env> {
  const names = { TOPIC_METRIC: uniqueName('gpu'), TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
  for (const topic of Object.values(names)) await createTopic(kafka.bootstrap, topic, { partitions: 2 })
  return {
    ...names,
    KAFKA_BOOTSTRAP: kafka.bootstrap,
    MONGO_URL: withDatabase(mongod.url, uniqueName('doctor')),
    KAFKA_GROUP: uniqueName('g'),
    HOSTNAME: 'gpu-1',
    DATA_DIR: join(directory.path, 'never-made'),
    PORT: '1',
  }
}

async function examined(env: Env, nowMs: () => number = Date.now, isProducer = false): Promise<Finding[]> {
  const loaded = loadConfig({ env, envFile: '', flags: {} })
  assert.deepEqual(loaded.problems, [])
  return examine({ config: loaded.config, loaded }, { nowMs, isProducer })
}

/** What is wrong, but for the own HTTP: nothing runs there. */
async function wrongLines(env: Env, nowMs?: () => number): Promise<string[]> {
  const findings = await examined(env, nowMs)
  for (const { message } of findings) assert.doesNotMatch(message, /\n/, 'one line each')
  return findings.filter(({ ok, part }) => ok === false && part !== 'http').map((one) => `${one.part}: ${one.message}`)
}

/** Exactly these are wrong, in this order. */
function assertLines(lines: string[], expected: RegExp[]): void {
  assert.equal(lines.length, expected.length, lines.join('\n'))
  for (const [i, pattern] of expected.entries()) assert.match(lines[i]!, pattern)
}

async function storeSamples(env: Env, samples: Partial<GpuDocument>[], tokenHost?: string): Promise<void> {
  const store = new MongoStore({ url: env['MONGO_URL']!, log: quiet })
  await store.prepare()
  const base = { ts: new Date(), host: 'gpu-1', gpu_index: 0, name: 'L4', utilization: 0.5 }
  await store.writeDocuments(
    samples.map((sample, i) => ({ ...base, ...sample, _id: ownEventId('doctor', String(i)) }) as GpuDocument),
    tokenHost === undefined ? [] : [tokenOf(tokenHost)],
  )
  await store.close()
}

function tokenOf(host: string): TokenDocument {
  const counts = { prompt_tokens: 1, completion_tokens: 1, latency_ms: 1 }
  const event = { ts: new Date(), host, gpu_index: 0, model: 'llama', ...counts }
  return { ...event, _id: ownEventId('doctor', 'token') } as unknown as TokenDocument
}

test('a well deployment: every part is looked at and nothing is wrong', limit, async () => {
  const env = await wellSettings()
  await storeSamples(env, [{}])
  const findings = await examined(env)
  assert.deepEqual(
    findings.filter(({ ok }) => ok === true).map(({ part }) => part),
    ['log', 'topics', 'group', 'store', 'disk', 'disk', 'clock', 'hosts'],
  )
  assert.deepEqual(
    findings.filter(({ ok }) => ok === false).map(({ part }) => part),
    ['http'],
  )
})

test('a machine that only publishes: no store is made, and nothing of a processor is looked for', limit, async () => {
  const { MONGO_URL: _, TOPIC_DEAD: __, ...env } = await wellSettings()
  const findings = await examined({ ...env, ...PUBLISHING }, Date.now, true)
  const parts = (state: boolean | null) => findings.filter(({ ok }) => ok === state).map(({ part }) => part)
  assert.deepEqual([parts(true), parts(false)], [['log', 'topics', 'disk', 'seed'], []])
  assert.equal(existsSync(env['DATA_DIR']!), false)
  const inContainer = await examined({ ...env, ...PUBLISHING, HOSTNAME: CONTAINER }, Date.now, true)
  const hosts = inContainer.filter(({ part }) => part === 'hosts')
  assert.deepEqual([hosts.length, hosts[0]?.ok], [1, false])
})

test('wrong values in .env are named all at once, before anything is reached', (t) => {
  const cwd = temporaryDirectory(t)
  const wrong = 'PORT=http\nMONGO_URL=10.0.1.86:27017\nKAFKA_BOOTSTRAP=10.0.1.197\nKAFKA_SASL_USERNAME=me\n'
  writeFileSync(join(cwd, '.env'), wrong)
  const { status, stderr } = pertoken(['doctor'], {}, cwd)
  assert.equal(status, 2)
  for (const line of [
    /^PORT is "http": expected/m,
    /^MONGO_URL is "10\.0\.1\.86:27017": expected/m,
    /^KAFKA_BOOTSTRAP has "10\.0\.1\.197": expected host:port/m,
    /^KAFKA_SASL_USERNAME .* is set: expected KAFKA_SASL_MECHANISM beside it/m,
  ])
    assert.match(stderr, line)
})

const SETTINGS: [string, Env, string, (RegExp | null)[]][] = [
  ['all there', { KAFKA_BOOTSTRAP: 'k:1', MONGO_URL: 'mongodb://m' }, '', []],
  ['none there: all embedded', {}, 'COMPOSE_PROJECT_NAME=x\nKAFKA_IMAGE=y\nDATA_DIR_HOST=/srv\n', []],
  ['Kafka’s address is missing', { MONGO_URL: 'mongodb://m' }, '', [/KAFKA_BOOTSTRAP is not set.*embedded.*set it/]],
  ['MongoDB’s address is missing', { KAFKA_BOOTSTRAP: 'k:1' }, '', [/MONGO_URL is not set.*embedded/]],
  [
    'nearly a name',
    {},
    'KAFKA_BOOTSTRAP_SERVERS=k:1\nMONGO_URI=m\nTOPIC_METRICS=t\n',
    [
      /sets KAFKA_BOOTSTRAP_SERVERS,.*mean KAFKA_BOOTSTRAP\?/,
      /MONGO_URI,.*MONGO_URL\?/,
      /TOPIC_METRICS,.*TOPIC_METRIC\?/,
    ],
  ],
]
for (const [title, env, envFile, expected] of SETTINGS) {
  test(`settings: ${title}`, () => {
    const findings = checkSettings(loadConfig({ env, envFile, flags: {} }), { envFile, isProducer: false })
    assert.equal(findings.length, expected.length, JSON.stringify(findings))
    for (const [i, pattern] of expected.entries()) assert.match(findings[i]!.message, pattern!)
  })
}

test('a broker that cannot be reached', limit, async () => {
  const env = { ...(await wellSettings()), KAFKA_BOOTSTRAP: `127.0.0.1:${await freePort()}` }
  assertLines(await wrongLines(env), [
    /^log: Cannot use kafka at 127\.0\.0\.1:\d+:.*ECONNREFUSED.*check KAFKA_BOOTSTRAP/,
  ])
})

test('a broker that sends its clients on to an address where nobody reaches it', limit, async () => {
  const properties = readFileSync(join(directory.path, 'kafka', 'server.properties'), 'utf8')
  const bootstrap = `127.0.0.1:${/^listeners=.*PROXIED:\/\/127\.0\.0\.1:(\d+)/m.exec(properties)![1]}`
  const env = { ...(await wellSettings()), KAFKA_BOOTSTRAP: bootstrap }
  const proxy = kafka.proxy!
  proxy.cut()
  const line = `^brokers: Kafka at ${bootstrap} answers, but sends clients on to 127\\.0\\.0\\.1:${proxy.port} .*: set advertised\\.listeners`
  assertLines(await wrongLines(env), [new RegExp(line)])
  proxy.resume()
  assertLines(await wrongLines(env), [])
  // Reset in the middle of their end, connections may keep a process of Node from ending.
  await until('the proxy is idle', async () => proxy.connections === 0)
})

test('MongoDB: a wrong password, and no server', limit, async () => {
  const env = await wellSettings()
  const wrong = { ...env, MONGO_URL: env['MONGO_URL']!.replace(/\/\/root:[^@]*@/, '//root:not-this@') }
  const [line, ...more] = await wrongLines(wrong)
  assert.deepEqual(more, [])
  assert.match(line!, /^store: Cannot use mongodb .*refuses the user or the password.*MONGO_PASSWORD/)
  assert.doesNotMatch(line!, /not-this|check MONGO_URL and that it runs/)
  const away = { ...env, MONGO_URL: `mongodb://127.0.0.1:${await freePort()}/ca0?serverSelectionTimeoutMS=500` }
  assertLines(await wrongLines(away), [/^store: Cannot use mongodb ca0 .*ECONNREFUSED.*check MONGO_URL/])
})

test('a full disk under DATA_DIR', (t) => {
  const mount = temporaryDirectory(t)
  const smallDisk = onSmallDisk(t, mount, 64)
  if (smallDisk === null) return
  /** Doctor's lines with DATA_DIR on that disk, of which so many MiB are taken. */
  const linesWith = (takenMiB: number): string => {
    const script = `mkdir "$0/data" &&
      { dd if=/dev/zero of="$0/filler" bs=1M count=${takenMiB} status=none || true; } && exec "$@" doctor`
    const [command, ...words] = [...smallDisk, 'sh', '-c', script, mount, process.execPath, BIN]
    const env = { PATH: process.env['PATH'], DATA_DIR: join(mount, 'data'), PORT: '1' }
    const { stdout, stderr } = spawnSync(command!, words, { env, cwd: '/', encoding: 'utf8' })
    assert.match(stdout, /^(ok|WRONG)/, stderr)
    return stdout
  }
  assert.match(linesWith(1), /^ok +disk +DATA_DIR \/.*: 62\.\d MiB free of 64\.0 MiB$/m)
  assert.match(
    linesWith(61),
    /^WRONG disk +Disk of DATA_DIR \/.* is nearly full, 2\.\d MiB free of 64\.0 MiB: make room/m,
  )
  // Not a byte left: the embedded store cannot even be made.
  const full = linesWith(64)
  assert.match(full, /^WRONG disk +Disk of DATA_DIR .* 0\.0 MiB free/m)
  assert.match(full, /^WRONG store .*(no space left|disk)/m)
})

test('the disks of MongoDB and the brokers, as they tell it', limit, async () => {
  const findings = (await examined(await wellSettings())).filter(({ part }) => part === 'disk')
  const { bsize, blocks } = statfsSync(directory.path)
  const total = `of ${((blocks * bsize) / 1024 ** 3).toFixed(1)} GiB`
  assert.equal(findings.length, 2, JSON.stringify(findings))
  assert.ok(findings[0]!.message.startsWith('MongoDB: ') && findings[0]!.message.endsWith(total))
  assert.ok(
    findings[1]!.message.startsWith(`Kafka broker 1 (${directory.path}`) && findings[1]!.message.endsWith(total),
  )
})

const GIB = 1024 ** 3
const DISKS: [Omit<Disk, 'name'>, boolean][] = [
  [{ freeBytes: 0.6 * GIB, totalBytes: 10 * GIB }, true],
  [{ freeBytes: 0.4 * GIB, totalBytes: 10 * GIB }, false],
  [{ freeBytes: 1.1 * GIB, totalBytes: 4000 * GIB }, true],
  [{ freeBytes: 0.9 * GIB, totalBytes: 4000 * GIB }, false],
  [{ freeBytes: 0, totalBytes: GIB }, false],
]
test('a disk is nearly full below 5 % and below 1 GiB', () => {
  for (const [disk, ok] of DISKS) assert.equal(diskFindings([{ name: 'x', ...disk }])[0]!.ok, ok, JSON.stringify(disk))
})

test('clocks that are minutes off: this one’s, a host’s, a producer’s', limit, async () => {
  const env = await wellSettings()
  await storeSamples(env, [{ ts: new Date(Date.now() - MINUTE_MS) }])
  assertLines(await wrongLines(env), [])
  // Behind MongoDB's by so much, every stamp of the others looks like the future.
  const behind = await wrongLines(env, () => Date.now() - 7 * MINUTE_MS)
  assert.match(behind[0]!, /^clock: This machine's clock is 7\.0 min behind MongoDB's.*timedatectl/)
  assertLines(await wrongLines(env, () => Date.now() + 3 * 60 * MINUTE_MS), [/^clock: .* is 3\.0 h ahead of MongoDB's/])

  const producer = new Producer({ clientId: 'fast-clock', bootstrapBrokers: [kafka.bootstrap] })
  const timestamp = BigInt(Date.now() + 10 * MINUTE_MS)
  await producer.send({ messages: [{ topic: env['TOPIC_TOKEN']!, value: Buffer.from('{}'), timestamp }] as never })
  await producer.close()
  assertLines(await wrongLines(env), [
    /^clock: The log's newest record is from (10\.0|9\.9) min ahead: a producer's clock/,
  ])
  await storeSamples(env, [{}, { host: 'gpu-2', ts: new Date(Date.now() + 10 * MINUTE_MS) }])
  assertLines(await wrongLines(env), [/^clock: The clock of host "gpu-2" is (10\.0|9\.9) min ahead of this machine's/])
})

test('an older processor in the group', limit, async (t) => {
  const env = await wellSettings()
  const older = new Consumer({
    clientId: 'older-processor',
    bootstrapBrokers: [kafka.bootstrap],
    groupId: env['KAFKA_GROUP']!,
    protocols: [{ name: 'roundrobin', version: 1 }],
  })
  t.after(() => older.close(true).catch(() => {}))
  older.topics.track(env['TOPIC_TOKEN']!)
  await older.joinGroup({ sessionTimeout: 6_000, rebalanceTimeout: 6_000, heartbeatInterval: 300 })
  assertLines(await wrongLines(env), [
    /^group: An older processor is in group "g-.*": older-processor at 127\.0\.0\.1 \(roundrobin\); stop it/,
  ])
  await older.close(true)
  assertLines(await wrongLines(env), [])
})

test('documents of an older deployment and no word on where to begin', limit, async () => {
  const env = await wellSettings()
  const client = await new MongoClient(env['MONGO_URL']!).connect()
  await client.db(new URL(env['MONGO_URL']!).pathname.slice(1)).collection('gpu_metrics').insertOne({ ts: 'old' })
  await client.close()
  assertLines(await wrongLines(env), [])
  const producer = new Producer({ clientId: 'any', bootstrapBrokers: [kafka.bootstrap] })
  await producer.send({ messages: [{ topic: env['TOPIC_METRIC']!, value: Buffer.from('{}') }] })
  await producer.close()
  assertLines(await wrongLines(env), [
    new RegExp(`^start: Cannot decide where to begin ${env['TOPIC_METRIC']}: .* KAFKA_GROUP .*--from latest`),
  ])
})

interface HostCase {
  title: string
  samples: Partial<GpuDocument>[]
  tokenHost?: string
  settings?: Env
  wrong: RegExp[]
}

const HOSTS: HostCase[] = [
  { title: 'names of people', samples: [{ host: 'gpu-1' }, { host: 'feed-me' }], wrong: [] },
  {
    title: 'a container’s id as a sampled host',
    samples: [{ host: CONTAINER }],
    wrong: [/^hosts: Samples come from "3f2a1b4c5d6e", ids of containers: .*set hostname:/],
  },
  {
    title: 'a container’s id as the name of this host, which publishes',
    samples: [],
    settings: { HOSTNAME: CONTAINER, ...PUBLISHING },
    wrong: [/^hosts: HOSTNAME is "3f2a1b4c5d6e", a container's id: .*set hostname:/],
  },
  { title: 'the same, where nothing is published', samples: [], settings: { HOSTNAME: CONTAINER }, wrong: [] },
  {
    title: 'a container’s id as DEFAULT_HOST',
    samples: [],
    settings: { DEFAULT_HOST: CONTAINER },
    wrong: [/^hosts: DEFAULT_HOST is "3f2a1b4c5d6e"/],
  },
  {
    title: 'one uuid under two host names',
    samples: [{ uuid: 'GPU-7' }, { host: 'gpu-2', gpu_index: 3, uuid: 'GPU-7' }],
    wrong: [/^hosts: One GPU, GPU-7, is sampled under "gpu-1" GPU 0, "gpu-2" GPU 3, and paid for under each: give/],
  },
  {
    title: 'two GPUs under one host name',
    samples: [{ name: 'L4' }, { name: 'T4' }],
    wrong: [/^hosts: "gpu-1" GPU 0 is sampled as L4, T4: two machines use one host name/],
  },
  {
    title: 'two GPUs of one name under one host name, which take turns',
    samples: [{ uuid: 'GPU-7' }, { uuid: 'GPU-8' }],
    wrong: [/^hosts: "gpu-1" GPU 0 is sampled as GPU-7, GPU-8, which take turns, and only one GPU is paid for: give/],
  },
  {
    title: 'tokens with the host’s full name',
    samples: [{}],
    tokenHost: 'gpu-1.example.com',
    wrong: [/^hosts: Tokens name host "gpu-1.example.com", of which no sample came; "gpu-1" has samples of GPU 0: /],
  },
  { title: 'tokens with the name of the samples', samples: [{}], tokenHost: 'gpu-1', wrong: [] },
]
for (const { title, samples, tokenHost, settings = {}, wrong } of HOSTS) {
  test(`hosts: ${title}`, limit, async () => {
    const env = await wellSettings()
    await storeSamples(env, samples, tokenHost)
    assertLines(await wrongLines({ ...env, ...settings }), wrong)
  })
}

test('a MongoDB URL that cannot be read is told without its password', async () => {
  const [line, ...more] = await wrongLines({ MONGO_URL: 'mongodb://me:p@ss/word@127.0.0.1/ca0', PORT: '1' })
  assert.deepEqual(more, [])
  assert.match(line!, /^store: Cannot read MONGO_URL: .*have to be encoded/)
  assert.doesNotMatch(line!, /ss\/word/)
})

test('a folder for data that cannot be made', async (t) => {
  const cwd = temporaryDirectory(t)
  writeFileSync(join(cwd, 'file'), '')
  assertLines(await wrongLines({ DATA_DIR: join(cwd, 'file', 'data'), PORT: '1' }), [
    /^data: Cannot use DATA_DIR ".*": ENOTDIR.*set another folder/,
  ])
})
