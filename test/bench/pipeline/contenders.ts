// The programs that drain the same topics into MongoDB, each into a database of its own, in the collections gpu_metrics
// and token_usage with the same indexes on time and origin: the naive loop, Kafka Connect's MongoDB sink, and ours with
// all that it does by default (sliding window, prices, marks of the ledger, positions, HTTP).

import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MongoClient } from 'mongodb'
import { ServerProcess } from '../../servers/server-process.ts'
import { withDatabase } from '../../servers/servers-for-tests.ts'
import { buildPackage, type PertokenPackage } from '../package.ts'
import { kafkaConnectCommand, type Tuning } from '../peers/kafka-connect.ts'

export const CONTENDERS = ['naive', 'connect', 'ours'] as const
export type ContenderName = (typeof CONTENDERS)[number]

const BIN = new URL('../../../bin/pertoken.js', import.meta.url).pathname
const NAIVE = join(import.meta.dirname, 'naive.ts')

export const COLLECTIONS = { gpu: 'gpu_metrics', token: 'token_usage' } as const

/** Topics of one size: samples and token usage. */
export interface Topics {
  gpu: string
  token: string
}

export interface StartOptions {
  /** Also its consumer group; new. */
  database: string
  topics: Topics
  /** Ours only. */
  port?: number
}

export interface ContendersOptions {
  bootstrap: string
  mongoUrl: string
  /** Runs ours and the naive loop from their sources, in place of the package and of plain JavaScript. */
  fromSources: boolean
  connectTuning: Tuning
  /** Ours writes a CPU profile there. */
  profileDirectory: string | undefined
}

export class Contenders {
  readonly #options: ContendersOptions
  readonly #directory = mkdtempSync(join(tmpdir(), 'pertoken-bench-'))
  /** Built before anything is timed. */
  readonly #package: PertokenPackage | undefined
  readonly #naiveProgram: string

  constructor(options: ContendersOptions) {
    this.#options = options
    this.#package = options.fromSources ? undefined : buildPackage()
    this.#naiveProgram = this.#package === undefined ? NAIVE : compileNaive(this.#package.directory)
  }

  async start(name: ContenderName, options: StartOptions): Promise<ServerProcess> {
    if (name === 'naive') return this.#startNaive(options)
    if (name === 'connect') return this.#startConnect(options)
    return this.#startOurs(options)
  }

  close(): void {
    this.#package?.remove()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  #startNaive({ database, topics }: StartOptions): ServerProcess {
    const { bootstrap, mongoUrl } = this.#options
    const words = [bootstrap, mongoUrl, database, database, `${topics.gpu},${topics.token}`]
    return this.#spawn(database, [process.execPath, this.#naiveProgram, ...words])
  }

  async #startConnect({ database, topics }: StartOptions): Promise<ServerProcess> {
    const { bootstrap, mongoUrl, connectTuning: tuning } = this.#options
    await createIndexes(mongoUrl, database)
    const collections = { [topics.gpu]: COLLECTIONS.gpu, [topics.token]: COLLECTIONS.token }
    const directory = join(this.#directory, database)
    const options = { bootstrap, mongoUrl, database, tuning, collections, directory }
    return this.#spawn(database, await kafkaConnectCommand(options))
  }

  #startOurs({ database, topics, port = 0 }: StartOptions): ServerProcess {
    const { bootstrap, mongoUrl, profileDirectory } = this.#options
    const bin = this.#package?.bin ?? BIN
    const profile = profileDirectory === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profileDirectory}`]
    const words = ['processor', '--port', String(port), '--host', '127.0.0.1', '--log-level', 'warn']
    const env = {
      KAFKA_BOOTSTRAP: bootstrap,
      KAFKA_GROUP: database,
      MONGO_URL: withDatabase(mongoUrl, database),
      TOPIC_METRIC: topics.gpu,
      TOPIC_TOKEN: topics.token,
    }
    return this.#spawn(database, [process.execPath, ...profile, bin, ...words], env)
  }

  /** It ends with this process, however that ends. */
  #spawn(database: string, [program, ...words]: readonly string[], env: Record<string, string> = {}): ServerProcess {
    const logFile = join(this.#directory, `${database}.log`)
    return new ServerProcess(program!, words, { logFile, scratchDirectory: '', env })
  }
}

/**
 * Stripping types would count to its start-up and memory, which ours as a package does without. Into a package's
 * directory.
 */
function compileNaive(directory: string): string {
  const settings = ['--ignoreConfig', '--target', 'es2024', '--module', 'nodenext', '--types', 'node', '--skipLibCheck']
  copyFileSync(NAIVE, join(directory, 'naive.ts'))
  execFileSync('node_modules/.bin/tsc', [...settings, 'naive.ts'], { cwd: directory, stdio: 'inherit' })
  return join(directory, 'naive.js')
}

/** Those that the naive loop creates. */
async function createIndexes(mongoUrl: string, database: string): Promise<void> {
  const client = await new MongoClient(mongoUrl).connect()
  try {
    const db = client.db(database)
    await db.collection(COLLECTIONS.gpu).createIndexes([{ key: { ts: 1 } }, { key: { host: 1, gpu_index: 1 } }])
    await db.collection(COLLECTIONS.token).createIndexes([{ key: { ts: 1 } }, { key: { model: 1 } }])
  } finally {
    await client.close()
  }
}
