// The states of days under retention, one row each. A day only moves forward, by statements that require the state
// before.

import { type DayState, STATE_BEFORE } from '../../ledger-store.ts'
import type { StoreDatabase } from '../store-database.ts'

export async function readDayStates(file: StoreDatabase): Promise<DayState[]> {
  const sql = 'SELECT start_ms AS startMs, state, since_ms AS sinceMs FROM day_states ORDER BY start_ms'
  const rows = file.use('Reading the states of days failed', () => file.all<DayState>(sql))
  return rows.map((row) => ({ ...row }))
}

export async function advanceDay(file: StoreDatabase, { startMs, state, sinceMs }: DayState): Promise<boolean> {
  const before = STATE_BEFORE[state]
  return file.transaction('Writing the state of a day failed', () => {
    if (before === null) {
      const sql =
        'INSERT INTO day_states (start_ms, state, since_ms) VALUES (?, ?, ?) ON CONFLICT (start_ms) DO NOTHING'
      return file.run(sql, startMs, state, sinceMs) === 1
    }
    const sql = 'UPDATE day_states SET state = ?, since_ms = ? WHERE start_ms = ? AND state = ?'
    return file.run(sql, state, sinceMs, startMs, before) === 1
  })
}
