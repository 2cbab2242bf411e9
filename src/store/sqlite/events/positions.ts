// How far each group has read: one row per group, topic, partition and topic id. An advance changes nothing where the
// stored position is ahead, so two processors may race and a write may be repeated.

import type { Position } from '../../../log/event-log.ts'
import type { StoreDatabase } from '../store-database.ts'

const INSERT = `INSERT INTO positions (group_name, topic, partition, topic_id, offset) VALUES (?, ?, ?, ?, ?)
  ON CONFLICT DO`
const ADVANCE = `${INSERT} UPDATE SET offset = excluded.offset WHERE excluded.offset > offset`
const BEGIN = `${INSERT} NOTHING`

export async function advancePositions(
  file: StoreDatabase,
  group: string,
  positions: readonly Position[],
): Promise<void> {
  if (positions.length === 0) return
  await file.transaction('Writing positions failed', () => put(file, ADVANCE, { group, positions }))
}

export async function beginPositions(
  file: StoreDatabase,
  group: string,
  positions: readonly Position[],
): Promise<void> {
  if (positions.length === 0) return
  await file.transaction('Writing positions failed', () => put(file, BEGIN, { group, positions }))
}

export async function readPositions(file: StoreDatabase, group: string): Promise<Position[]> {
  const sql = `SELECT topic, partition, topic_id AS topicId, offset FROM positions WHERE group_name = ?
    ORDER BY topic, partition, topic_id`
  const rows = file.use('Reading positions failed', () => file.all<Position>(sql, group))
  return rows.map((row) => ({ ...row }))
}

export async function resetPositions(
  file: StoreDatabase,
  group: string,
  positions: readonly Position[],
): Promise<void> {
  await file.transaction('Setting positions failed', () => {
    for (const { topic, partition } of positions) {
      const sql = 'DELETE FROM positions WHERE group_name = ? AND topic = ? AND partition = ?'
      file.run(sql, group, topic, partition)
    }
    put(file, ADVANCE, { group, positions })
  })
}

function put(
  file: StoreDatabase,
  sql: string,
  { group, positions }: { group: string; positions: readonly Position[] },
): void {
  for (const { topic, partition, topicId, offset } of positions) file.run(sql, group, topic, partition, topicId, offset)
}
