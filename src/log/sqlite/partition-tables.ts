// What is in the embedded log's tables, as functions over the file: partitions of topics, records of a partition, who
// owns a group. All are synchronous and short; callers bound how much they ask for, since SQLite blocks the event loop.

import type { LogRecord } from '../event-log.ts'
import type { LogFile } from './log-file.ts'

export interface PartitionRow {
  /** Names the table of the partition's records. */
  id: number
  topic: string
  topicId: string
  partition: number
  nextOffset: number
}

interface RecordRow {
  offset: number
  time_ms: number
  key: Uint8Array | null
  value: Uint8Array | null
  headers: string | null
}

/** The partitions of one topic in order; empty when there is no such topic. */
export function partitionsOf(file: LogFile, topic: string): PartitionRow[] {
  return file.all<PartitionRow>(
    `SELECT partitions.id, name AS topic, topic_id AS topicId, partition, next_offset AS nextOffset
     FROM topics JOIN partitions ON topic = topics.id WHERE name = ? ORDER BY partition`,
    topic,
  )
}

/** Offsets that the next records will get, by partition id. */
export function endOffsets(file: LogFile): Map<number, number> {
  const rows = file.all<{ id: number; next_offset: number }>('SELECT id, next_offset FROM partitions')
  return new Map(rows.map((row) => [row.id, row.next_offset]))
}

export function endOffset(file: LogFile, id: number): number {
  return file.get<{ next_offset: number }>('SELECT next_offset FROM partitions WHERE id = ?', id)!.next_offset
}

/** Offset and time of the oldest record that is still there. */
export function oldestRecord(file: LogFile, id: number): { offset: number; time_ms: number } | undefined {
  return file.get(`SELECT offset, time_ms FROM records_${id} ORDER BY offset LIMIT 1`)
}

export function committedOffset(file: LogFile, group: string, id: number): number | null {
  const sql = 'SELECT offset FROM committed WHERE group_name = ? AND partition_id = ?'
  return file.get<{ offset: number | null }>(sql, group, id)?.offset ?? null
}

export function setCommittedOffset(file: LogFile, group: string, id: number, offset: number): void {
  file.run('INSERT OR REPLACE INTO committed (group_name, partition_id, offset) VALUES (?, ?, ?)', group, id, offset)
}

/** Makes the group known for a partition: from now on only what it has committed past may be pruned. */
export function registerGroup(file: LogFile, group: string, id: number): void {
  file.run('INSERT OR IGNORE INTO committed (group_name, partition_id, offset) VALUES (?, ?, NULL)', group, id)
}

/** Records from an offset on: at most `limit`, and none more once they pass `maxBytes`. */
export function readRecords(
  file: LogFile,
  id: number,
  { offset, limit, maxBytes }: { offset: number; limit: number; maxBytes: number },
): { records: LogRecord[]; bytes: number } {
  const records: LogRecord[] = []
  let bytes = 0
  const sql = `SELECT offset, time_ms, key, value, headers FROM records_${id} WHERE offset >= ? ORDER BY offset LIMIT ?`
  for (const row of file.statement(sql).iterate(offset, limit) as Iterable<unknown> as Iterable<RecordRow>) {
    records.push({
      offset: row.offset,
      timestampMs: row.time_ms,
      key: toBuffer(row.key),
      value: toBuffer(row.value),
      headers: row.headers === null ? null : decodeHeaders(row.headers),
    })
    bytes += (row.value?.length ?? 0) + (row.key?.length ?? 0)
    if (bytes >= maxBytes) break
  }
  return { records, bytes }
}

/** Headers as text: pairs of name and base64. They are rare, and few readers look at them. */
export function encodeHeaders(headers: Readonly<Record<string, string | Buffer>> | undefined): string | null {
  const pairs = Object.entries(headers ?? {})
  if (pairs.length === 0) return null
  return JSON.stringify(pairs.map(([name, value]) => [name, Buffer.from(value as string).toString('base64')]))
}

function decodeHeaders(text: string): Map<string, Buffer> {
  const pairs = JSON.parse(text) as [string, string][]
  return new Map(pairs.map(([name, value]) => [name, Buffer.from(value, 'base64')]))
}

function toBuffer(bytes: Uint8Array | null): Buffer | null {
  return bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
