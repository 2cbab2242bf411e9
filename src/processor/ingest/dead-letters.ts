// Records that can never become documents: put into the dead-letter topic with their original bytes and where they came
// from, and copied to the store so that listing needs no scan of the topic. `redrive` puts one back where it came from.
// No record is dropped: when the topic rejects one for its size, it gets a truncated value, with length and SHA-256 of
// the whole one in the headers.

import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { REDRIVE_ID_HEADER } from '../../domain/events/cloudevents.ts'
import { logEventId, logIdPrefix } from '../../domain/events/event-id.ts'
import { type EventLog, LogError, type NewRecord } from '../../log/event-log.ts'
import { DEAD_LETTER_COPY_BYTES, type DeadLetter, type EventStore } from '../../store/event-store.ts'
import type { RejectedRecord } from './step.ts'

const EMPTY = Buffer.alloc(0)
/** Longest header value that is copied from a rejected record, characters. */
const MAX_HEADER_LENGTH = 1024

/**
 * Writes rejected records to the dead-letter topic, then to the store. A repeated call appends the same headers and
 * bytes again.
 */
export async function writeDeadLetters(
  log: EventLog,
  store: EventStore,
  topic: string,
  rejected: readonly RejectedRecord[],
  at: Date,
): Promise<void> {
  const letters = rejected.map((one) => deadLetterOf(one, at))
  const records = rejected.map((one, i) => recordOf(one, letters[i]!))
  try {
    await log.append(topic, records)
  } catch (error) {
    if (!(error instanceof LogError) || error.retriable) throw error
    // One by one, so that only what the broker rejects is truncated.
    for (const record of records) await appendCutIfNeeded(log, topic, record)
  }
  await store.writeDeadLetters(letters)
}

async function appendCutIfNeeded(log: EventLog, topic: string, record: NewRecord): Promise<void> {
  try {
    await log.append(topic, [record])
  } catch (error) {
    if (!(error instanceof LogError) || error.retriable || record.value === null) throw error
    const key = record.key === null ? null : Buffer.from(record.key).subarray(0, MAX_HEADER_LENGTH)
    const value = record.value.subarray(0, DEAD_LETTER_COPY_BYTES)
    await log.append(topic, [{ ...record, key, value, headers: { ...record.headers, cut: 'true' } }])
  }
}

function deadLetterOf(one: RejectedRecord, at: Date): DeadLetter {
  const { batch, record, refusal } = one
  const value = record.value ?? EMPTY
  return {
    _id: logEventId(logIdPrefix(batch), record.offset, crc32(value)),
    reason: refusal.reason,
    message: refusal.message,
    topic: batch.topic,
    topic_id: batch.topicId,
    partition: batch.partition,
    offset: record.offset,
    record_time: new Date(record.timestampMs),
    time: at,
    key: record.key?.subarray(0, MAX_HEADER_LENGTH) ?? null,
    value: record.value?.subarray(0, DEAD_LETTER_COPY_BYTES) ?? null,
    value_length: value.length,
    value_sha256: createHash('sha256').update(value).digest('hex'),
    headers: headersOf(one),
  }
}

function headersOf(one: RejectedRecord): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const [name, value] of one.record.headers ?? []) {
    headers[name.slice(0, MAX_HEADER_LENGTH)] = (value?.toString('utf8') ?? '').slice(0, MAX_HEADER_LENGTH)
  }
  return headers
}

function recordOf(one: RejectedRecord, letter: DeadLetter): NewRecord {
  const { record } = one
  const original: Record<string, string | Buffer> = {}
  for (const [name, value] of record.headers ?? []) original[name] = value ?? EMPTY
  return {
    key: record.key,
    value: record.value,
    headers: {
      ...original,
      reason: letter.reason,
      message: letter.message.slice(0, MAX_HEADER_LENGTH),
      topic: letter.topic,
      topic_id: letter.topic_id,
      partition: String(letter.partition),
      offset: String(letter.offset),
      time: letter.time.toISOString(),
      length: String(letter.value_length),
      sha256: letter.value_sha256,
    },
  }
}

/**
 * Puts a dead letter back into its topic, with the id that it would have had. Throws an Error with a remedy when the
 * store has only a part of its bytes.
 */
export async function redrive(log: EventLog, store: EventStore, letter: DeadLetter, at: Date): Promise<void> {
  if (letter.value !== null && letter.value.length < letter.value_length) {
    throw new Error(
      `Cannot redrive ${letter._id}: the store keeps ${letter.value.length} of its ${letter.value_length} bytes; ` +
        'read the whole record from the dead-letter topic and publish it again',
    )
  }
  // One that was rejected twice keeps the id of its first place.
  const headers = { [REDRIVE_ID_HEADER]: letter._id, ...letter.headers }
  await log.append(letter.topic, [{ key: letter.key, value: letter.value, partition: letter.partition, headers }])
  await store.markRedriven(letter._id, at)
}
