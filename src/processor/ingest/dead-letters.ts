// Records that can never become documents: put into the dead-letter topic with their original bytes and where they came
// from, and copied to the store so that listing needs no scan of the topic. `redrive` puts one back where it came from.
// No record is dropped, and none may stop its step, whatever it is made of: when the topic rejects one for its size, it
// gets the beginning of key, value and headers, with length and SHA-256 of the whole value; what is no time or no Date
// is not made one.

import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { REDRIVE_ID_HEADER } from '../../domain/events/cloudevents.ts'
import { logEventId, logIdPrefix } from '../../domain/events/event-id.ts'
import { recordDateOf } from '../../domain/events/record-time.ts'
import { type EventLog, LogError, type LogRecord, type NewRecord } from '../../log/event-log.ts'
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
  try {
    await log.append(
      topic,
      rejected.map((one, i) => recordOf(one, letters[i]!)),
    )
  } catch (error) {
    if (!isForGood(error)) throw error
    // One by one, so that only what the broker rejects is truncated.
    for (const [i, one] of rejected.entries()) await appendCutIfNeeded(log, topic, one, letters[i]!)
  }
  await store.writeDeadLetters(letters)
}

async function appendCutIfNeeded(log: EventLog, topic: string, one: RejectedRecord, letter: DeadLetter): Promise<void> {
  try {
    return await log.append(topic, [recordOf(one, letter)])
  } catch (error) {
    if (!isForGood(error)) throw error
  }
  const headers = { ...headersOf(letter), cut: 'true' }
  const { key, value } = letter
  try {
    await log.append(topic, [{ key, value, headers: { ...letter.headers, ...headers } }])
  } catch (error) {
    if (!isForGood(error)) throw error
    // A topic with a small max.message.bytes: position, reason and checksum still fit.
    await log.append(topic, [{ key: null, value: null, headers }])
  }
}

/** Whether the log rejects a record for what it is, not for a passing reason. */
function isForGood(error: unknown): boolean {
  return error instanceof LogError && !error.retriable
}

function deadLetterOf(one: RejectedRecord, at: Date): DeadLetter {
  const { batch, record, refusal } = one
  const value = record.value ?? EMPTY
  const { headers, note } = copyHeaders(record.headers)
  return {
    _id: logEventId(logIdPrefix(batch), record.offset, crc32(value)),
    reason: refusal.reason,
    message: refusal.message + note,
    topic: batch.topic,
    topic_id: batch.topicId,
    partition: batch.partition,
    offset: record.offset,
    record_time: recordDateOf(record.timestampMs),
    time: at,
    key: record.key?.subarray(0, MAX_HEADER_LENGTH) ?? null,
    value: record.value?.subarray(0, DEAD_LETTER_COPY_BYTES) ?? null,
    value_length: value.length,
    value_sha256: createHash('sha256').update(value).digest('hex'),
    headers,
  }
}

/** The headers as text, as many as fit; the note states how many did not. */
function copyHeaders(headers: LogRecord['headers']): { headers: Record<string, string>; note: string } {
  const kept: [string, string][] = []
  let room = DEAD_LETTER_COPY_BYTES
  for (const [name, value] of headers ?? []) {
    const entry: [string, string] = [
      name.slice(0, MAX_HEADER_LENGTH),
      (value?.toString('utf8', 0, 4 * MAX_HEADER_LENGTH) ?? '').slice(0, MAX_HEADER_LENGTH),
    ]
    room -= entry[0].length + entry[1].length
    if (room < 0) break
    kept.push(entry)
  }
  const left = (headers?.size ?? 0) - kept.length
  // Not by assignment: a header may be named __proto__.
  return {
    headers: Object.fromEntries(kept),
    note: left === 0 ? '' : `; the copy lacks the last ${left} of its headers`,
  }
}

function recordOf({ record }: RejectedRecord, letter: DeadLetter): NewRecord {
  const original = Object.fromEntries([...(record.headers ?? [])].map(([name, value]) => [name, value ?? EMPTY]))
  return { key: record.key, value: record.value, headers: { ...original, ...headersOf(letter) } }
}

/** Why a record was rejected and where it lay. */
function headersOf(letter: DeadLetter): Record<string, string> {
  return {
    reason: letter.reason,
    message: letter.message.slice(0, MAX_HEADER_LENGTH),
    topic: letter.topic,
    topic_id: letter.topic_id,
    partition: String(letter.partition),
    offset: String(letter.offset),
    time: letter.time.toISOString(),
    length: String(letter.value_length),
    sha256: letter.value_sha256,
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
