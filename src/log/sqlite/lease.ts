// The lease of a consumer group: one member owns all partitions, the others stand by and take over when it leaves, or
// when its heartbeat is older than `leaseMs` (it died, or its process was stopped). Two owners for a moment do no harm,
// since ids are deterministic; so the wall clock suffices. A heartbeat from the future (the clock was set back) counts
// as old as one equally far in the past.

import type { LogDatabase } from './log-database.ts'

interface LeaseRow {
  owner: string
  heartbeat_ms: number
}

/** Renews or takes the lease; false when another member has it. A stand-by that finds it taken writes nothing. */
export function holdLease(
  database: LogDatabase,
  group: string,
  { member, leaseMs }: { member: string; leaseMs: number },
): boolean {
  const isTaken = () => {
    const row = readLease(database, group)
    return row !== undefined && row.owner !== member && isAlive(row, leaseMs)
  }
  if (database.use('Reading the lease failed', isTaken)) return false
  return database.transactLoosely('Taking the lease failed', () => {
    if (isTaken()) return false
    database.run(
      'INSERT OR REPLACE INTO leases (group_name, owner, heartbeat_ms) VALUES (?, ?, ?)',
      group,
      member,
      Date.now(),
    )
    return true
  })
}

export function releaseLease(database: LogDatabase, group: string, member: string): void {
  database.transactLoosely('Leaving the group failed', () => {
    database.run('DELETE FROM leases WHERE group_name = ? AND owner = ?', group, member)
  })
}

/** Whether the member has the lease; only inside `use` or a transaction. */
export function ownsLease(database: LogDatabase, group: string, member: string): boolean {
  return readLease(database, group)?.owner === member
}

/** Whether any member has the lease; only inside `use` or a transaction. */
export function hasOwner(database: LogDatabase, group: string, leaseMs: number): boolean {
  const row = readLease(database, group)
  return row !== undefined && isAlive(row, leaseMs)
}

function readLease(database: LogDatabase, group: string): LeaseRow | undefined {
  return database.get<LeaseRow>('SELECT owner, heartbeat_ms FROM leases WHERE group_name = ?', group)
}

function isAlive(row: LeaseRow, leaseMs: number): boolean {
  return Math.abs(Date.now() - row.heartbeat_ms) < leaseMs
}
