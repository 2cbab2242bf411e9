// How far each group has read: one document per group, topic, partition and topic id. $max makes an advance a no-op
// when the stored position is ahead, so two processors may race and a write whose reply was lost may be repeated. Two
// upserts of one new position can collide on _id; the second finds the document when it is retried.

import type { Position } from '../../../log/event-log.ts'
import { POSITIONS } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { bulkError, faultsOf, isDuplicateId } from './writes.ts'

const MAX_UPDATES = 1_000
const ATTEMPTS = 3

/** Which position counts where one is stored: the larger one, the new one, the stored one. */
type Operator = '$max' | '$set' | '$setOnInsert'

interface StoredPosition {
  _id: string
  group: string
  topic: string
  partition: number
  topic_id: string
  offset: number
}

export async function advancePositions(
  connection: MongoConnection,
  group: string,
  positions: readonly Position[],
): Promise<void> {
  await updatePositions(connection, group, positions, '$max')
}

export async function beginPositions(
  connection: MongoConnection,
  group: string,
  positions: readonly Position[],
): Promise<void> {
  await updatePositions(connection, group, positions, '$setOnInsert')
}

export async function readPositions(connection: MongoConnection, group: string): Promise<Position[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  const stored = await connection.db.collection<StoredPosition>(POSITIONS).find({ group }, options).toArray()
  return stored.map(({ topic, partition, topic_id, offset }) => ({ topic, partition, topicId: topic_id, offset }))
}

export async function resetPositions(
  connection: MongoConnection,
  group: string,
  positions: readonly Position[],
): Promise<void> {
  if (positions.length === 0) return
  // The new ones first: a crash in between leaves one position too many, which a repetition removes, and not none.
  await updatePositions(connection, group, positions, '$set')
  const kept = positions.map((position) => idOf(group, position))
  const deletes = positions.map(({ topic, partition }) => ({
    q: { group, topic, partition, _id: { $nin: kept } },
    limit: 0,
  }))
  const command = { delete: POSITIONS, deletes, writeConcern: connection.writeConcern }
  const faults = faultsOf(await connection.command(command))
  if (faults.length > 0) throw bulkError(POSITIONS, faults, positions.length)
}

async function updatePositions(
  connection: MongoConnection,
  group: string,
  positions: readonly Position[],
  operator: Operator,
): Promise<void> {
  for (let start = 0; start < positions.length; start += MAX_UPDATES) {
    let updates = positions.slice(start, start + MAX_UPDATES).map((position) => updateOf(group, position, operator))
    for (let attempt = 1; updates.length > 0; attempt++) {
      const command = { update: POSITIONS, updates, ordered: false, writeConcern: connection.writeConcern }
      const faults = faultsOf(await connection.command(command))
      const failed = faults.filter((fault) => attempt === ATTEMPTS || !isDuplicateId(fault))
      if (failed.length > 0) throw bulkError(POSITIONS, failed, updates.length)
      updates = faults.map((fault) => updates[fault.index!]!)
    }
  }
}

function updateOf(group: string, position: Position, operator: Operator) {
  const { topic, partition, topicId, offset } = position
  const key = { group, topic, partition, topic_id: topicId }
  const u =
    operator === '$setOnInsert' ? { $setOnInsert: { ...key, offset } } : { [operator]: { offset }, $setOnInsert: key }
  return { q: { _id: idOf(group, position) }, u, upsert: true }
}

/** Kafka's topics and topic ids have no colon; a group may have any character, so its length comes first. */
function idOf(group: string, { topic, partition, topicId }: Position): string {
  return `${group.length}:${group}:${topic.length}:${topic}:${partition}:${topicId}`
}
