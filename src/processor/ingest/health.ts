// What /health reports: ok, or what is wrong and since when, with the lag, the last event and the outcome counts.
// `starting` and `draining` are states of their own, so that an orchestrator and an operator read the same.

import type { Subscription } from '../../log/event-log.ts'
import type { Outcomes } from './outcomes.ts'

export interface Health {
  status: 'ok' | 'starting' | 'draining' | 'stopped' | 'error'
  problems: { code: string; message: string; since?: string }[]
  /**
   * Records between what is read and the end of the log, over this member's partitions; null before the first answer.
   */
  lag: number | null
  /** Event time of the newest event that was read. */
  last_event: string | null
  outcomes: {
    read: number
    stored: number
    duplicate: number
    late: number
    rejected: number
    rejected_by_reason: Record<string, number>
  }
  open_steps: number
  slots: number
}

interface HealthInput {
  phase: 'starting' | 'running' | 'draining' | 'stopped'
  failing: readonly { what: string; message: string; sinceMs: number }[]
  subscription: Subscription | null
  /** How long the member has been in the group or joining it, milliseconds. */
  runningMs: number
  outcomes: Outcomes
  lastEventMs: number | null
  openSteps: number
  slots: number
}

/** How long a member without partitions counts as starting, then it is on standby, milliseconds. */
const STANDBY_MS = 20_000

/** Combines the states of the parts. */
export function healthOf(input: HealthInput): Health {
  const { outcomes, subscription } = input
  const problems: Health['problems'] = [
    ...input.failing.map(({ what, message, sinceMs }) => ({
      code: 'failing',
      message: `Cannot ${what}: ${message}`,
      since: new Date(sinceMs).toISOString(),
    })),
    ...(subscription?.problems ?? []),
  ]
  // A group may have more members than partitions: one that has been assigned none for so long is on standby, and
  // healthy.
  const isRunning = (subscription?.assigned.length ?? 0) > 0 || input.runningMs > STANDBY_MS
  const settled = input.phase === 'running' ? (isRunning ? 'ok' : 'starting') : input.phase
  return {
    status: problems.length > 0 ? 'error' : settled,
    problems,
    lag: subscription === null ? null : lagOf(subscription),
    last_event: input.lastEventMs === null ? null : new Date(input.lastEventMs).toISOString(),
    outcomes: {
      read: outcomes.read,
      stored: outcomes.stored,
      duplicate: outcomes.duplicate,
      late: outcomes.late,
      rejected: outcomes.rejected,
      rejected_by_reason: Object.fromEntries(outcomes.rejectedByReason),
    },
    open_steps: input.openSteps,
    slots: input.slots,
  }
}

function lagOf(subscription: Subscription): number | null {
  const known = subscription.lag().filter((partition) => partition.position !== null)
  return known.length === 0
    ? null
    : known.reduce((sum, partition) => sum + Math.max(0, partition.endOffset - partition.position!), 0)
}
