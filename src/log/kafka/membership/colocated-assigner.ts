// Who reads which partition: partition n of every topic goes to the same member, n modulo members in the order of their
// ids. So samples and tokens of one host (both keyed by host) are seen by one process, and its live window is whole.
// The library's round robin co-locates only by luck (SPIKE.md part 2: 0 of 12 pairs with 5 members).
// A member that does not follow a topic yet (it was made a moment ago) is left out for that topic alone.

import type { GroupPartitionsAssigner } from '@platformatic/kafka'

export const COLOCATED = 'colocated'

export const colocatedAssigner: GroupPartitionsAssigner = (_current, members, topics, metadata) => {
  const ids = [...members.keys()].sort()
  const assignments = new Map(ids.map((id) => [id, new Map<string, { topic: string; partitions: number[] }>()]))
  for (const topic of topics) {
    const followers = ids.filter((id) => members.get(id)?.topics?.includes(topic) ?? true)
    if (followers.length === 0) continue
    const count = metadata.topics.get(topic)?.partitionsCount ?? 0
    for (let partition = 0; partition < count; partition += 1) {
      const own = assignments.get(followers[partition % followers.length]!)!
      const known = own.get(topic)
      if (known) known.partitions.push(partition)
      else own.set(topic, { topic, partitions: [partition] })
    }
  }
  return [...assignments].map(([memberId, own]) => ({ memberId, assignments: own }))
}
