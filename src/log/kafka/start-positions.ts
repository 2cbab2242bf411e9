// What the owner of a subscription is asked, and whether its answer can be followed. The group's committed offset is only
// reported: the owner's store knows how far all is stored, and decides. An offset that the log does not have is not
// moved to the nearest one that it has: that would skip or repeat records in silence.

import type { AssignedPartition, StartDecision } from '../event-log.ts'
import { EARLIEST, type KafkaCluster, LATEST, partitionKey } from './cluster.ts'
import type { PartitionState } from './fetch-loop.ts'

export async function describePartitions(
  cluster: KafkaCluster,
  group: string,
  states: readonly PartitionState[],
): Promise<AssignedPartition[]> {
  const [earliest, end, committed] = await Promise.all([
    cluster.offsets(states, EARLIEST),
    cluster.offsets(states, LATEST),
    cluster.committed(group, states),
  ])
  return states.map((state) => {
    const key = partitionKey(state)
    return {
      topic: state.topic,
      partition: state.partition,
      topicId: state.topicId,
      committedOffset: committed.get(key) ?? null,
      earliestOffset: earliest.get(key) ?? 0,
      endOffset: end.get(key) ?? 0,
    }
  })
}

/** A decision that the log cannot follow is a reason to stop, never to jump. */
export function checkedStart(question: AssignedPartition, decision: StartDecision | undefined): StartDecision {
  if (!decision) return { blocked: 'no start position was decided' }
  if ('blocked' in decision) return decision
  const { earliestOffset, endOffset } = question
  if (decision.offset >= earliestOffset && decision.offset <= endOffset) return decision
  return { blocked: `position ${decision.offset} is outside of the log, which has ${earliestOffset} to ${endOffset}` }
}
