// The states of days under retention, one document each in the bookkeeping collection. A day only moves forward: by an
// insert first and then by updates whose filter is the state before, so a repeated or concurrent move changes nothing.

import { type DayState, STATE_BEFORE } from '../../ledger-store.ts'
import { META } from '../collections.ts'
import type { MongoConnection } from '../connection.ts'
import { insertDocuments, updateOne } from '../events/writes.ts'

interface DayDocument {
  /** `day:` and the date. */
  _id: string
  start: Date
  state: DayState['state']
  since: Date
}

export async function readDayStates(connection: MongoConnection): Promise<DayState[]> {
  const options = { maxTimeMS: connection.queryTimeMs }
  // `;` is the character after `:`.
  const days = connection.db.collection<DayDocument>(META).find({ _id: { $gte: 'day:', $lt: 'day;' } }, options)
  const stored = await days.sort({ _id: 1 }).toArray()
  return stored.map(({ start, state, since }) => ({ startMs: start.getTime(), state, sinceMs: since.getTime() }))
}

export async function advanceDay(connection: MongoConnection, { startMs, state, sinceMs }: DayState): Promise<boolean> {
  const start = new Date(startMs)
  const since = new Date(sinceMs)
  const _id = `day:${start.toISOString().slice(0, 10)}`
  const before = STATE_BEFORE[state]
  if (before === null) return (await insertDocuments(connection, META, [{ _id, start, state, since }])).stored === 1
  return await updateOne(connection, META, { q: { _id, state: before }, u: { $set: { state, since } } })
}
