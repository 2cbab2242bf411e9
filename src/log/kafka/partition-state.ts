// Where each assigned partition stands. The subscription decides where one starts and replaces the object when the
// partition is revoked or assigned again; the fetch loop advances it. A late response falls on an object that is no
// longer in the map, and counts for nothing.

import type { AssignedPartition, StartDecision } from '../event-log.ts'

export interface PartitionState {
  readonly topic: string
  readonly partition: number
  readonly topicId: string
  leader: number
  phase: 'starting' | 'reading' | 'blocked'
  /** Why it is blocked; kept until it reads, so that /health does not flicker while its start is decided again. */
  reason: string
  /** Next offset to hand out. */
  position: number
  /** Next offset to request from a broker: `position`, or after what is read ahead. */
  fetchOffset: number
  endOffset: number
  stableEndOffset: number
  /** When a start position was last requested from the owner. */
  startRequestedAtMs: number
  movedAtMs: number
  /** The partition that was served longest ago is requested first, since a broker fills its response in that order. */
  servedTurn: number
}

export function newPartitionState(
  place: Pick<PartitionState, 'topic' | 'partition' | 'topicId' | 'leader'>,
): PartitionState {
  return {
    ...place,
    phase: 'starting',
    reason: '',
    position: 0,
    fetchOffset: 0,
    endOffset: 0,
    stableEndOffset: 0,
    startRequestedAtMs: 0,
    movedAtMs: performance.now(),
    servedTurn: 0,
  }
}

/** Stops reading until the owner decides again; a reason is shown in /health. */
export function block(state: PartitionState, reason: string): void {
  state.phase = 'blocked'
  state.reason = reason
  state.startRequestedAtMs = performance.now()
}

/**
 * Starts reading where the owner decided, or blocks: an offset that the log does not have is never moved to a near one.
 */
export function start(state: PartitionState, described: AssignedPartition, decision: StartDecision | undefined): void {
  state.startRequestedAtMs = performance.now()
  state.endOffset = described.endOffset
  state.stableEndOffset = described.endOffset
  const checked = checkedStart(described, decision)
  if ('blocked' in checked) {
    block(state, checked.blocked)
    return
  }
  state.phase = 'reading'
  state.position = checked.offset
  state.fetchOffset = checked.offset
  state.movedAtMs = performance.now()
}

function checkedStart(described: AssignedPartition, decision: StartDecision | undefined): StartDecision {
  if (!decision) return { blocked: 'no start position was decided' }
  if ('blocked' in decision) return decision
  const { earliestOffset, endOffset } = described
  if (decision.offset >= earliestOffset && decision.offset <= endOffset) return decision
  return { blocked: `position ${decision.offset} is outside of the log, which has ${earliestOffset} to ${endOffset}` }
}

/**
 * Partitions that have not moved for `stalledMs` although the log has records for them. While the owner does not take
 * records (`inUse` is false) none counts as stalled.
 */
export function stalledOf(
  states: Iterable<PartitionState>,
  { inUse, stalledMs }: { inUse: boolean; stalledMs: number },
): PartitionState[] {
  const nowMs = performance.now()
  return [...states].filter((state) => {
    const behind = state.phase === 'reading' && state.position < state.stableEndOffset
    if (!behind || !inUse) state.movedAtMs = nowMs
    return nowMs - state.movedAtMs > stalledMs
  })
}
