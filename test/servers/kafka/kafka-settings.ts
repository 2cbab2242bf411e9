// Settings of the Kafka brokers that tests and bench start: one broker, short sessions, no waiting, little memory.
// Kept apart from the process handling because they are what a reader compares with a broker of his own. Anything may
// be overridden per broker. Retention is off: traces from 2023 would otherwise be deleted while a test reads them.

export type KafkaMode = 'kraft' | 'zookeeper'
export type KafkaOverrides = Readonly<Record<string, string | number | boolean>>

export type KafkaPorts = {
  client: number
  /** The KRaft controller's, or ZooKeeper's. */
  coordination: number
  /** A second listener, advertised under a proxy's port; see tcp-proxy.ts. */
  behindProxy?: { listen: number; advertise: number }
  /** Of each further listener, by name. */
  further?: Readonly<Record<string, number>>
}

/** A listener beside the plain one, at localhost. Its settings are written without the prefix `listener.name.….`. */
export type KafkaListener = {
  protocol: 'SSL' | 'SASL_PLAINTEXT' | 'SASL_SSL'
  settings: KafkaOverrides
}

const COMMON: KafkaOverrides = {
  'num.partitions': 12,
  'auto.create.topics.enable': false,
  'delete.topic.enable': true,
  'default.replication.factor': 1,
  'offsets.topic.replication.factor': 1,
  'offsets.topic.num.partitions': 3,
  'transaction.state.log.replication.factor': 1,
  'transaction.state.log.min.isr': 1,
  'transaction.state.log.num.partitions': 3,
  // Groups form at once, and a test may use sessions of a second; the second pair is for the newer group protocol.
  'group.initial.rebalance.delay.ms': 0,
  'group.min.session.timeout.ms': 1_000,
  'group.consumer.min.session.timeout.ms': 1_000,
  'group.consumer.min.heartbeat.interval.ms': 100,
  'controlled.shutdown.max.retries': 1,
  'controlled.shutdown.retry.backoff.ms': 100,
  'log.retention.ms': -1,
  'log.segment.delete.delay.ms': 1_000,
  'log.flush.offset.checkpoint.interval.ms': 1_000,
  // The cleaner's buffer is 128 MB by default, a quarter of the heap that a test's broker gets.
  'log.cleaner.dedupe.buffer.size': 4 << 20,
  'num.network.threads': 2,
  'num.io.threads': 4,
  'background.threads': 2,
  'num.recovery.threads.per.data.dir': 2,
}

export type KafkaChoice = {
  mode: KafkaMode
  overrides?: KafkaOverrides
  /** By name: capital letters and underscores. */
  listeners?: Readonly<Record<string, KafkaListener>>
}

export function kafkaProperties(choice: KafkaChoice, ports: KafkaPorts, logDirectory: string): string {
  const { mode, overrides, listeners: further = {} } = choice
  const { client, coordination, behindProxy } = ports
  const listeners = [`PLAINTEXT://127.0.0.1:${client}`]
  const advertised = [`PLAINTEXT://127.0.0.1:${client}`]
  if (behindProxy) {
    listeners.push(`PROXIED://127.0.0.1:${behindProxy.listen}`)
    advertised.push(`PROXIED://127.0.0.1:${behindProxy.advertise}`)
  }
  const protocols = ['PLAINTEXT:PLAINTEXT', 'PROXIED:PLAINTEXT', 'CONTROLLER:PLAINTEXT']
  const ofListeners: Record<string, string | number | boolean> = {}
  for (const [name, { protocol, settings }] of Object.entries(further)) {
    listeners.push(`${name}://127.0.0.1:${ports.further?.[name]}`)
    advertised.push(`${name}://localhost:${ports.further?.[name]}`)
    protocols.push(`${name}:${protocol}`)
    for (const [key, value] of Object.entries(settings))
      ofListeners[`listener.name.${name.toLowerCase()}.${key}`] = value
  }
  if (mode === 'kraft') listeners.push(`CONTROLLER://127.0.0.1:${coordination}`)
  return properties({
    ...COMMON,
    ...(mode === 'kraft' ? kraft(coordination) : zookeeper(coordination)),
    listeners: listeners.join(','),
    'advertised.listeners': advertised.join(','),
    'listener.security.protocol.map': protocols.join(','),
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': logDirectory,
    ...ofListeners,
    ...overrides,
  })
}

function kraft(controllerPort: number): KafkaOverrides {
  return {
    'process.roles': 'broker,controller',
    'node.id': 1,
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    // A broker becomes usable, and may end, at one of its heartbeats.
    'broker.heartbeat.interval.ms': 200,
    // A killed broker can come back only when its session has expired (9 s by default).
    'broker.session.timeout.ms': 2_500,
  }
}

function zookeeper(port: number): KafkaOverrides {
  return {
    'broker.id': 1,
    'zookeeper.connect': `127.0.0.1:${port}`,
    // A killed broker can come back only when its session has expired; a paused one should not lose it at once.
    'zookeeper.session.timeout.ms': 4_000,
    'zookeeper.connection.timeout.ms': 30_000,
  }
}

export function zookeeperProperties(port: number, dataDirectory: string): string {
  return properties({
    dataDir: dataDirectory,
    clientPort: port,
    clientPortAddress: '127.0.0.1',
    tickTime: 500,
    'admin.enableServer': false,
    maxClientCnxns: 0,
    '4lw.commands.whitelist': 'srvr,dump',
  })
}

/** For reload4j (3.9): warnings to standard error, which is the log file. slf4j-simple (4.1) needs only flags. */
export const LOG4J_PROPERTIES = properties({
  'log4j.rootLogger': 'WARN, out',
  'log4j.appender.out': 'org.apache.log4j.ConsoleAppender',
  'log4j.appender.out.target': 'System.err',
  'log4j.appender.out.layout': 'org.apache.log4j.PatternLayout',
  'log4j.appender.out.layout.ConversionPattern': '%d %p %m (%c)%n',
})

function properties(values: KafkaOverrides): string {
  return Object.entries(values)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('')
}
