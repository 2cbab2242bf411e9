// Kafka Connect standalone with MongoDB's sink, a peer of the bench: it stores each JSON event as a document, in its
// own database, without Connect's envelope, keys as strings, no transformations, no dead-letter topic; two tasks, one
// for each core of the smallest machine, each with a consumer of its own over the same partitions. `tuned` favours it:
// - inserts with ids made of topic, partition and offset, as in the naive loop (by default the sink replaces, for which
//   MongoDB looks each id up), unordered;
// - a bulk write for each poll of up to 5,000 records (by default 500);
// - Java's collector for throughput, with the same bound of the heap.
// `default` is what Connect's start script and the sink do unless they are configured. In both, offsets are committed
// once a minute, which the others do after each write.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../../servers/managed-server.ts'
import { kafkaConnectDirectory } from './install.ts'

const TASKS = 2
/** Of Connect's start script. */
const HEAP = ['-Xms256m', '-Xmx2g']

export const TUNINGS = ['tuned', 'default'] as const
export type Tuning = (typeof TUNINGS)[number]

type Properties = Readonly<Record<string, string | number | boolean>>

const SETTINGS: Record<Tuning, { jvm: readonly string[]; worker: Properties; sink: Properties }> = {
  tuned: {
    jvm: ['-XX:+UseParallelGC'],
    worker: { 'consumer.max.poll.records': 5000, 'consumer.max.partition.fetch.bytes': 4 << 20 },
    sink: {
      'document.id.strategy': 'com.mongodb.kafka.connect.sink.processor.id.strategy.KafkaMetaDataStrategy',
      'writemodel.strategy': 'com.mongodb.kafka.connect.sink.writemodel.strategy.InsertOneDefaultStrategy',
      'bulk.write.ordered': false,
    },
  },
  default: {
    // Of Connect's start script.
    jvm: ['-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20', '-XX:InitiatingHeapOccupancyPercent=35'],
    worker: {},
    sink: {},
  },
}

export interface KafkaConnectOptions {
  bootstrap: string
  mongoUrl: string
  database: string
  tuning: Tuning
  /** Collection of each topic. */
  collections: Readonly<Record<string, string>>
  /** For its settings and offsets; created. */
  directory: string
}

/** Writes its settings; returns the command that starts it, which stays in the foreground. */
export async function kafkaConnectCommand(options: KafkaConnectOptions): Promise<string[]> {
  const { directory, tuning } = options
  mkdirSync(directory, { recursive: true })
  const write = (name: string, properties: Properties) => {
    const lines = Object.entries(properties).map(([key, value]) => `${key}=${value}\n`)
    writeFileSync(join(directory, name), lines.join(''))
    return join(directory, name)
  }
  const flags = [
    ...['-server', ...HEAP, ...SETTINGS[tuning].jvm, '-XX:-UsePerfData', '-Djava.awt.headless=true'],
    `-XX:ErrorFile=${join(directory, 'jvm-crash.log')}`,
    `-Dlog4j.configuration=file:${write('log4j.properties', LOG4J)}`,
  ]
  const settings = [
    write('worker.properties', workerProperties(options, await freePort())),
    write('sink.properties', sinkProperties(options)),
  ]
  const main = ['-cp', join(kafkaConnectDirectory(), '*'), 'org.apache.kafka.connect.cli.ConnectStandalone']
  return ['java', ...flags, ...main, ...settings]
}

function workerProperties({ bootstrap, directory, tuning }: KafkaConnectOptions, port: number): Properties {
  return {
    'bootstrap.servers': bootstrap,
    listeners: `http://127.0.0.1:${port}`,
    'key.converter': 'org.apache.kafka.connect.storage.StringConverter',
    'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'value.converter.schemas.enable': false,
    'offset.storage.file.filename': join(directory, 'offsets'),
    ...SETTINGS[tuning].worker,
  }
}

function sinkProperties({ mongoUrl, database, collections, tuning }: KafkaConnectOptions): Properties {
  const ofTopics = Object.entries(collections).map(([topic, name]) => [`topic.override.${topic}.collection`, name])
  return {
    // Also its consumer group: connect-NAME.
    name: database,
    'connector.class': 'com.mongodb.kafka.connect.MongoSinkConnector',
    'tasks.max': TASKS,
    topics: Object.keys(collections).join(','),
    'connection.uri': `${mongoUrl}${mongoUrl.includes('?') ? '&' : '?'}w=majority`,
    database,
    ...Object.fromEntries(ofTopics),
    ...SETTINGS[tuning].sink,
  }
}

const LOG4J: Properties = {
  'log4j.rootLogger': 'ERROR, err',
  'log4j.appender.err': 'org.apache.log4j.ConsoleAppender',
  'log4j.appender.err.target': 'System.err',
  'log4j.appender.err.layout': 'org.apache.log4j.PatternLayout',
  'log4j.appender.err.layout.ConversionPattern': '%d %p %m (%c)%n',
}
