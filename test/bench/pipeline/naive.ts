// The fair baseline: what a competent hour's work would be. The client's message stream, JSON.parse, insertMany of
// 5,000 with deterministic string ids, one write at a time. No validation, no price, no marks, no positions, no HTTP.

import { Consumer, MessagesStreamFallbackModes, MessagesStreamModes } from '@platformatic/kafka'
import { MongoClient } from 'mongodb'

const [bootstrap, mongoUrl, database, group, topicList] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
]
const topics = topicList.split(',')
const BATCH = 5000
const FLUSH_MS = 200

const client = await new MongoClient(mongoUrl).connect()
const db = client.db(database)
const collections = new Map(
  topics.map((topic) => [topic, db.collection<{ _id: string }>(topic.includes('gpu') ? 'gpu_metrics' : 'token_usage')]),
)
await db.collection('gpu_metrics').createIndexes([{ key: { ts: 1 } }, { key: { host: 1, gpu_index: 1 } }])
await db.collection('token_usage').createIndexes([{ key: { ts: 1 } }, { key: { model: 1 } }])

const consumer = new Consumer({ clientId: 'naive', groupId: group, bootstrapBrokers: [bootstrap] })
const stream = await consumer.consume({
  topics,
  mode: MessagesStreamModes.COMMITTED,
  fallbackMode: MessagesStreamFallbackModes.EARLIEST,
  autocommit: false,
  maxWaitTime: 250,
  minBytes: 1,
})
let pending = new Map<string, { _id: string }[]>(topics.map((topic) => [topic, []]))
let count = 0
let last = new Map<string, { topic: string; partition: number; offset: bigint; leaderEpoch: number }>()

async function flush(): Promise<void> {
  if (count === 0) return
  const [batch, offsets] = [pending, last]
  pending = new Map(topics.map((topic) => [topic, []]))
  last = new Map()
  count = 0
  for (const [topic, documents] of batch) {
    if (documents.length > 0)
      await collections.get(topic)!.insertMany(documents, { ordered: false, writeConcern: { w: 'majority' } })
  }
  await consumer.commit({ offsets: [...offsets.values()] })
}

/** One write at a time: the stream waits for it, and so does the timer that writes what a pause leaves over. */
let writing: Promise<void> = Promise.resolve()
const flushInTurn = () => {
  writing = writing.then(flush)
  return writing
}
setInterval(flushInTurn, FLUSH_MS)
for await (const message of stream) {
  const document = JSON.parse(message.value.toString()) as { _id: string }
  document._id = `${message.topic}-${message.partition}-${message.offset}`
  pending.get(message.topic)!.push(document)
  last.set(`${message.topic}-${message.partition}`, {
    topic: message.topic,
    partition: message.partition,
    offset: message.offset + 1n,
    leaderEpoch: 0,
  })
  count++
  if (count >= BATCH) await flushInTurn()
}
