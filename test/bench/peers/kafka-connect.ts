// Kafka Connect standalone with MongoDB's sink, a peer of the bench: it stores each JSON event as a document, in its own
// database. The settings favour it:
// - schemaless JSON without Connect's envelope, keys as strings, no transformations, no dead-letter topic;
// - inserts with ids made of topic, partition and offset, as in the naive loop (by default the sink replaces, for which
//   MongoDB looks each id up), unordered, a bulk write for each poll of up to 5,000 records (by default 500);
// - two tasks, one for each core of the smallest machine, each with a consumer of its own over the same partitions;
// - Java's collector for throughput, and the heap bound of Connect's own start script, 2 GB.
// All else is as by default: offsets are committed once a minute, which the others do after each write.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from '../../servers/managed-server.ts'
import { kafkaConnectDirectory } from './install.ts'

const TASKS = 2
const RECORDS_PER_POLL = 5000

type Properties = Readonly<Record<string, string | number | boolean>>

export interface KafkaConnectOptions {
  bootstrap: string
  mongoUrl: string
  database: string
  /** Collection of each topic. */
  collections: Readonly<Record<string, string>>
  /** For its settings and offsets; created. */
  directory: string
}

/** Writes its settings; returns the command that starts it, which stays in the foreground. */
export async function kafkaConnectCommand(options: KafkaConnectOptions): Promise<string[]> {
  const { directory } = options
  mkdirSync(directory, { recursive: true })
  const write = (name: string, properties: Properties) => {
    const lines = Object.entries(properties).map(([key, value]) => `${key}=${value}\n`)
    writeFileSync(join(directory, name), lines.join(''))
    return join(directory, name)
  }
  const flags = [
    ...['-Xms256m', '-Xmx2g', '-XX:+UseParallelGC', '-XX:-UsePerfData', '-Djava.awt.headless=true'],
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

function workerProperties({ bootstrap, directory }: KafkaConnectOptions, port: number): Properties {
  return {
    'bootstrap.servers': bootstrap,
    listeners: `http://127.0.0.1:${port}`,
    'key.converter': 'org.apache.kafka.connect.storage.StringConverter',
    'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'value.converter.schemas.enable': false,
    'offset.storage.file.filename': join(directory, 'offsets'),
    'consumer.max.poll.records': RECORDS_PER_POLL,
    'consumer.max.partition.fetch.bytes': 4 << 20,
  }
}

function sinkProperties({ mongoUrl, database, collections }: KafkaConnectOptions): Properties {
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
    'document.id.strategy': 'com.mongodb.kafka.connect.sink.processor.id.strategy.KafkaMetaDataStrategy',
    'writemodel.strategy': 'com.mongodb.kafka.connect.sink.writemodel.strategy.InsertOneDefaultStrategy',
    'bulk.write.ordered': false,
    // 0: as many as a poll returned.
    'max.batch.size': 0,
  }
}

const LOG4J: Properties = {
  'log4j.rootLogger': 'ERROR, err',
  'log4j.appender.err': 'org.apache.log4j.ConsoleAppender',
  'log4j.appender.err.target': 'System.err',
  'log4j.appender.err.layout': 'org.apache.log4j.PatternLayout',
  'log4j.appender.err.layout.ConversionPattern': '%d %p %m (%c)%n',
}
