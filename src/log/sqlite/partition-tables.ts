// What is in the embedded log's tables, as functions over the file: partitions of topics, their ends, and what groups have
// committed. All are synchronous and short, and called inside `use` or `transaction` of the file.

import type { LogDatabase } from './log-database.ts'

export interface PartitionRow {
  /** Names the table of the partition's records. */
  id: number
  topic: string
  topicId: string
  partition: number
  nextOffset: number
}

/** The partitions of one topic in order; empty when there is no such topic. */
export function partitionsOf(file: LogDatabase, topic: string): PartitionRow[] {
  return file.all<PartitionRow>(
    `SELECT partitions.id, name AS topic, topic_id AS topicId, partition, next_offset AS nextOffset
     FROM topics JOIN partitions ON topic = topics.id WHERE name = ? ORDER BY partition`,
    topic,
  )
}

/** Offsets that the next records will get, by partition id. */
export function endOffsets(file: LogDatabase): Map<number, number> {
  const rows = file.all<{ id: number; next_offset: number }>('SELECT id, next_offset FROM partitions')
  return new Map(rows.map((row) => [row.id, row.next_offset]))
}

export function endOffset(file: LogDatabase, id: number): number {
  return file.get<{ next_offset: number }>('SELECT next_offset FROM partitions WHERE id = ?', id)!.next_offset
}

/** Offset and time of the oldest record that is still there. */
export function oldestRecord(file: LogDatabase, id: number): { offset: number; time_ms: number } | undefined {
  return file.get(`SELECT offset, time_ms FROM records_${id} ORDER BY offset LIMIT 1`)
}

export function committedOffset(file: LogDatabase, group: string, id: number): number | null {
  const sql = 'SELECT offset FROM committed WHERE group_name = ? AND partition_id = ?'
  return file.get<{ offset: number | null }>(sql, group, id)?.offset ?? null
}

export function setCommittedOffset(file: LogDatabase, group: string, id: number, offset: number): void {
  file.run('INSERT OR REPLACE INTO committed (group_name, partition_id, offset) VALUES (?, ?, ?)', group, id, offset)
}

/** Makes the group known for a partition: from now on only what it has committed past may be pruned. */
export function registerGroup(file: LogDatabase, group: string, id: number): void {
  file.run('INSERT OR IGNORE INTO committed (group_name, partition_id, offset) VALUES (?, ?, NULL)', group, id)
}
