// Where to start reading a partition. The store's position is the only truth; the group's committed offset is used once,
// when the store has none yet. What does not fit the log (the topic was made anew, truncated, or lost its tail) blocks
// the partition until a person decides with `pertoken topics seek`: jumping would lose events in silence.

import type { AssignedPartition, Position, StartDecision } from '../log/event-log.ts'

const REMEDY = 'stop the processor and run `pertoken topics seek --to earliest` (or latest, or a time)'

/** Decides the start of one partition from all positions that the store has of the group. */
export function startOf(partition: AssignedPartition, stored: readonly Position[]): StartDecision {
  const here = `${partition.topic}/${partition.partition}`
  const { earliestOffset, endOffset, committedOffset } = partition
  const own = stored.filter((p) => p.topic === partition.topic && p.partition === partition.partition)
  const position = own.find((p) => p.topicId === partition.topicId)
  if (position !== undefined) {
    if (position.offset > endOffset) {
      return { blocked: `Position of ${here} is ${position.offset}, beyond the log's end ${endOffset}: ${REMEDY}` }
    }
    if (position.offset < earliestOffset) {
      const gap = earliestOffset - position.offset
      return {
        blocked: `Position of ${here} is ${position.offset}, but the log starts at ${earliestOffset} (${gap} records gone): ${REMEDY}`,
      }
    }
    return { offset: position.offset }
  }
  if (own.length > 0) {
    return { blocked: `Topic of ${here} was deleted and made anew since its position was stored: ${REMEDY}` }
  }
  if (committedOffset === null) return { offset: earliestOffset }
  if (committedOffset > endOffset) {
    return {
      blocked: `Committed offset of ${here} is ${committedOffset}, beyond the log's end ${endOffset}: ${REMEDY}`,
    }
  }
  return { offset: Math.max(committedOffset, earliestOffset) }
}
