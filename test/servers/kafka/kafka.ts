// Starts a real Kafka broker (3.9 or 4.1, KRaft or, 3.9 only, ZooKeeper) on free loopback ports for tests and bench.
// Controls act on the broker; the ZooKeeper beside it runs on until `close`, as it would in a real outage. With
// `proxied`, a second listener is advertised under a proxy's port: clients that bootstrap through the proxy stay behind
// it, while the test itself still reaches the broker directly. A start takes some 3 to 6 s on two cores.

import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { delimiter, join } from 'node:path'
import {
  type DataDirectory,
  freePort,
  ManagedServer,
  makeDataDirectory,
  onFreePorts,
  type ServerControls,
  untilAnswered,
} from '../managed-server.ts'
import { runTool } from '../run-tool.ts'
import { INSTALL_COMMAND, kafkaDirectory, NotInstalled, verifyOnce } from '../server-cache.ts'
import { startProxy, type TcpProxy } from '../tcp-proxy.ts'
import { KAFKA_RELEASES, type KafkaLine } from '../versions.ts'
import { askKafka } from './kafka-admin.ts'
import {
  type KafkaListener,
  type KafkaMode,
  type KafkaOverrides,
  kafkaProperties,
  LOG4J_PROPERTIES,
  zookeeperProperties,
} from './kafka-settings.ts'

export type KafkaOptions = {
  version: KafkaLine
  mode: KafkaMode
  /** Kept at close. Without it: a temporary one, deleted at close. */
  dataDir?: string
  port?: number
  overrides?: KafkaOverrides
  /** Adds `proxy` and `proxiedBootstrap`. */
  proxied?: boolean
  /** Listeners beside the plain one, by name; see `bootstrapOf`. For TLS and SASL: secured-kafka.ts. */
  listeners?: Readonly<Record<string, KafkaListener>>
  /** Java's maximal heap; the bench may want more. */
  heapMb?: number
}

export type KafkaServer = ServerControls & {
  /** 127.0.0.1:PORT, directly. */
  readonly bootstrap: string
  readonly port: number
  /** Only with `proxied`. */
  readonly proxy?: TcpProxy
  readonly proxiedBootstrap?: string
  /** localhost:PORT of a listener of the options. */
  bootstrapOf(listener: string): string
}

export async function startKafka(options: KafkaOptions): Promise<KafkaServer> {
  if (options.mode === 'zookeeper' && options.version !== '3.9') {
    throw new Error(`Cannot start Kafka ${options.version} with ZooKeeper: 4.0 and later have only "kraft"`)
  }
  await requireKafka(options.version)
  return onFreePorts(() => startOnce(options))
}

/** Rejects with NotInstalled unless this Kafka lies in the cache as it was installed and there is a Java to run it. */
export async function requireKafka(line: KafkaLine): Promise<void> {
  if (!isOnPath('java')) throw new NotInstalled(`Cannot start Kafka: no java on the PATH; run ${INSTALL_COMMAND}`)
  await verifyOnce(kafkaDirectory(line), KAFKA_RELEASES[line].sha256)
}

async function startOnce(options: KafkaOptions): Promise<KafkaServer> {
  const data = await makeDataDirectory('kafka', options.dataDir)
  const ports = { client: options.port ?? (await freePort()), coordination: await freePort() }
  const bootstrap = `127.0.0.1:${ports.client}`
  const hidden = options.proxied ? await freePort() : 0
  const proxy = options.proxied ? await startProxy({ targetPort: hidden }) : undefined
  const behindProxy = proxy ? { behindProxy: { listen: hidden, advertise: proxy.port } } : {}
  const further: Record<string, number> = {}
  for (const name of Object.keys(options.listeners ?? {})) further[name] = await freePort()
  const logDirectory = join(data.path, 'log')
  const properties = join(data.path, 'server.properties')
  await mkdir(logDirectory, { recursive: true })
  await writeFile(join(data.path, 'log4j.properties'), LOG4J_PROPERTIES)
  await writeFile(properties, kafkaProperties(options, { ...ports, ...behindProxy, further }, logDirectory))

  const zookeeper = options.mode === 'zookeeper' ? await zookeeperServer(options, ports.coordination, data) : undefined
  const broker = new ManagedServer({
    name: 'kafka',
    dataDirectory: data,
    ...java(options, data.path, 'kafka.Kafka', properties),
    port: ports.client,
    ask: () => askOwnKafka(bootstrap, logDirectory),
  })
  const start = async () => {
    if (zookeeper) await untilUnregistered(ports.coordination)
    await broker.start()
  }
  const close = async () => {
    await broker.end()
    await zookeeper?.end()
    await proxy?.close()
    await data.remove()
  }
  try {
    if (zookeeper) await zookeeper.start()
    else if (!existsSync(join(logDirectory, 'meta.properties'))) {
      const arguments_ = ['format', '-t', newClusterId(), '-c', properties]
      const format = java(options, data.path, 'kafka.tools.StorageTool', ...arguments_)
      await runTool(format.command, format.args)
    }
    await start()
  } catch (error) {
    await close()
    throw error
  }
  return {
    bootstrap,
    port: ports.client,
    ...(proxy ? { proxy, proxiedBootstrap: `127.0.0.1:${proxy.port}` } : {}),
    bootstrapOf: (listener) => `localhost:${further[listener]}`,
    get pid() {
      return broker.pid
    },
    start,
    stop: () => broker.stop(),
    kill: () => broker.kill(),
    pause: () => broker.pause(),
    resume: () => broker.resume(),
    close,
  }
}

/** Another's broker may have taken the port while ours is about to find that out: ours has the id of our directory. */
async function askOwnKafka(bootstrap: string, logDirectory: string): Promise<void> {
  const id = await askKafka(bootstrap)
  const meta = await readFile(join(logDirectory, 'meta.properties'), 'utf8')
  if (!meta.includes(`cluster.id=${id}`)) throw new Error(`Cannot use "${bootstrap}": it is another's broker`)
}

function newClusterId(): string {
  // A leading minus would be read as an option.
  return randomBytes(16).toString('base64url').replace(/^-/, 'A')
}

async function zookeeperServer(options: KafkaOptions, port: number, data: DataDirectory): Promise<ManagedServer> {
  const directory = join(data.path, 'zookeeper')
  const properties = join(data.path, 'zookeeper.properties')
  await mkdir(directory, { recursive: true })
  await writeFile(properties, zookeeperProperties(port, directory))
  return new ManagedServer({
    name: 'zookeeper',
    dataDirectory: data,
    ...java(options, data.path, 'org.apache.zookeeper.server.quorum.QuorumPeerMain', properties),
    port,
    ask: () => askZookeeper(port, 'srvr', (answer) => answer.includes('Mode: standalone')),
  })
}

function java(options: KafkaOptions, dataPath: string, mainClass: string, ...args: string[]) {
  const flags = [
    `-Xmx${options.heapMb ?? 512}m`,
    '-XX:+UseSerialGC',
    // No files outside of the data directory.
    '-XX:-UsePerfData',
    `-XX:ErrorFile=${join(dataPath, 'jvm-crash.log')}`,
    '-Djava.awt.headless=true',
    `-Dlog4j.configuration=file:${join(dataPath, 'log4j.properties')}`,
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
  ]
  return { command: 'java', args: [...flags, '-cp', join(kafkaDirectory(options.version), '*'), mainClass, ...args] }
}

/** Sends one of ZooKeeper's four-letter words; rejects unless the answer is as wanted. */
function askZookeeper(port: number, word: 'srvr' | 'dump', isWanted: (answer: string) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: 1_000 }, () => socket.write(word))
    let answer = ''
    socket.on('data', (chunk) => (answer += chunk))
    socket.on('timeout', () => socket.destroy(new Error('Cannot ask ZooKeeper: no answer')))
    socket.on('error', reject)
    socket.on('close', () => {
      if (isWanted(answer)) resolve()
      else reject(new Error(`Cannot go on with ZooKeeper: it answers "${answer}"`))
    })
  })
}

/** A broker that was killed leaves its registration until its session expires; another start before that would fail. */
async function untilUnregistered(port: number): Promise<void> {
  const isUnregistered = (answer: string) => answer.includes('SessionTracker') && !answer.includes('/brokers/ids/')
  await untilAnswered(() => askZookeeper(port, 'dump', isUnregistered), 30_000)
}

function isOnPath(command: string): boolean {
  const directories = (process.env['PATH'] ?? '').split(delimiter)
  return directories.some((directory) => existsSync(join(directory, command)))
}
