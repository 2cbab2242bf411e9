// Who of a consumer group reads: one member owns all partitions, the others stand by and take over when it leaves, or
// when its heartbeat is older than `leaseMs` (it died, or its process was stopped). Two owners for a moment do no harm,
// since ids are deterministic; so the wall clock is good enough. A heartbeat from the future (the clock was set back)
// counts as no older than one from as far in the past.

import type { LogDatabase } from './log-database.ts'

interface LeaseRow {
  owner: string
  heartbeat_ms: number
}

/** Keeps or takes the lease; false when another member has it. A stand-by that finds it taken writes nothing. */
export function holdLease(
  file: LogDatabase,
  group: string,
  { member, leaseMs }: { member: string; leaseMs: number },
): boolean {
  const takenByOther = () => {
    const row = readLease(file, group)
    return row !== undefined && row.owner !== member && isAlive(row, leaseMs)
  }
  if (file.use('Reading the lease failed', takenByOther)) return false
  return file.transactLoosely('Taking the lease failed', () => {
    if (takenByOther()) return false
    file.run(
      'INSERT OR REPLACE INTO leases (group_name, owner, heartbeat_ms) VALUES (?, ?, ?)',
      group,
      member,
      Date.now(),
    )
    return true
  })
}

export function releaseLease(file: LogDatabase, group: string, member: string): void {
  file.transactLoosely('Leaving the group failed', () => {
    file.run('DELETE FROM leases WHERE group_name = ? AND owner = ?', group, member)
  })
}

/** Whether the member has the lease; only inside `use` or a transaction. */
export function ownsLease(file: LogDatabase, group: string, member: string): boolean {
  return readLease(file, group)?.owner === member
}

/** Whether anybody has the lease; only inside `use` or a transaction. */
export function hasOwner(file: LogDatabase, group: string, leaseMs: number): boolean {
  const row = readLease(file, group)
  return row !== undefined && isAlive(row, leaseMs)
}

function readLease(file: LogDatabase, group: string): LeaseRow | undefined {
  return file.get<LeaseRow>('SELECT owner, heartbeat_ms FROM leases WHERE group_name = ?', group)
}

function isAlive(row: LeaseRow, leaseMs: number): boolean {
  return Math.abs(Date.now() - row.heartbeat_ms) < leaseMs
}
