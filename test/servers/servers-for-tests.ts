// What a test file asks for a Kafka or a MongoDB: the one that TEST_KAFKA_BOOTSTRAP or TEST_MONGO_URL names, else one
// of its own. Call it once at the top of a test file and hand `skip` to each test: with CI=true a server that cannot
// run throws, which fails the file; without CI the tests are skipped, loudly, with the command that would install it.
// What was started is stopped after the file's last test. A given server is shared with others: name everything by
// `uniqueName`. `owned: true` is for tests that stop, kill or pause: a given server is not theirs to stop, so they
// start one.

import { after } from 'node:test'
import { type KafkaOptions, type KafkaServer, requireKafka, startKafka } from './kafka/kafka.ts'
import { requireLlama } from './llama.ts'
import { type MongodOptions, type MongodServer, requireMongod, startMongod } from './mongod.ts'
import { INSTALL_COMMAND, NotInstalled } from './server-cache.ts'
import type { KafkaLine } from './versions.ts'

export type TestKafka = {
  /** For the options of a test: false, or why it cannot run. */
  readonly skip: string | false
  readonly bootstrap: string
  /** The controls; undefined for a given server. */
  readonly server: KafkaServer | undefined
}

export type TestMongo = {
  readonly skip: string | false
  /** Without a test's database: use `uniqueName` for `client.db(…)`, or `withDatabase`. */
  readonly url: string
  readonly server: MongodServer | undefined
}

type Owned = { owned?: boolean }

export async function kafkaForTests(options: Partial<KafkaOptions> & Owned = {}): Promise<TestKafka> {
  const { owned = false, ...rest } = options
  const given = process.env['TEST_KAFKA_BOOTSTRAP']
  if (given && !owned) return { skip: false, bootstrap: given, server: undefined }
  const asked: KafkaOptions = { version: '3.9', mode: 'kraft', ...rest }
  const skip = await skipWithoutKafka(asked.version)
  if (skip !== false) return { skip, bootstrap: '', server: undefined }
  const server = await startKafka(asked)
  after(() => server.close())
  return { skip, bootstrap: server.bootstrap, server }
}

export async function mongoForTests(options: Partial<MongodOptions> & Owned = {}): Promise<TestMongo> {
  const { owned = false, ...rest } = options
  const given = process.env['TEST_MONGO_URL']
  if (given && !owned) return { skip: false, url: given, server: undefined }
  const skip = await skipWithoutMongod()
  if (skip !== false) return { skip, url: '', server: undefined }
  const server = await startMongod({ mode: 'standalone', ...rest })
  after(() => server.close())
  return { skip, url: server.url, server }
}

let uniqueCount = 0

/** A name for a topic, a group or a database that no other test, process or run uses; at most 60 characters. */
export function uniqueName(prefix: string): string {
  const now = Date.now().toString(36)
  return `${prefix.slice(0, 30)}-${now}-${process.pid.toString(36)}-${(uniqueCount++).toString(36)}`
}

/** The URL with another database in its path. */
export function withDatabase(mongoUrl: string, database: string): string {
  // Not by URL: a list of hosts (a,b,c) is none for it.
  return mongoUrl.replace(/^(mongodb(?:\+srv)?:\/\/[^/?]+)(?:\/[^?]*)?/, (_, hosts: string) => `${hosts}/${database}`)
}

/** For the options of a test that starts a Kafka of its own: false, or why it cannot run. Throws with CI=true. */
export function skipWithoutKafka(line: KafkaLine): Promise<string | false> {
  return skipUnless('Kafka', () => requireKafka(line))
}

export function skipWithoutMongod(): Promise<string | false> {
  return skipUnless('mongod', requireMongod)
}

/** For the options of a test that starts a llama.cpp of its own. */
export function skipWithoutLlama(): Promise<string | false> {
  return skipUnless('llama.cpp', requireLlama)
}

async function skipUnless(name: string, isThere: () => Promise<void>): Promise<string | false> {
  try {
    await isThere()
    return false
  } catch (error) {
    // Not there is one thing; there, and broken, has to be seen.
    if (process.env['CI'] === 'true' || !(error instanceof NotInstalled)) throw error
    const reason = `${name} is not installed: run ${INSTALL_COMMAND}`
    console.error(`SKIPPED: ${reason} (${error.message})`)
    return reason
  }
}
