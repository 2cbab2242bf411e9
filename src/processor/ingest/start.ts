// Start-up: store and topics are prepared, and where each partition begins is decided. The store's position is the only
// truth; the group's committed offset is used once, when the store has none yet: so an older processor of the same
// group is taken over where it stopped. What does not fit the log (the topic was recreated, truncated, or lost its
// tail) blocks the partition until an operator decides with `pertoken topics seek`: jumping would lose events silently.
//
// Where neither is known there are two cases. A new store begins at the log's beginning. A store with documents of an
// older deployment may or may not hold the log's records already: only the operator knows, decides once (`--from`), and
// the store keeps the decision as positions of all partitions.

import { setTimeout as sleep } from 'node:timers/promises'
import type { AssignedPartition, EventLog, Position, StartDecision, TopicDescription } from '../../log/event-log.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { ClosedDays } from '../closed-days.ts'
import type { Retrier } from '../retry.ts'

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

/**
 * What a start at the group's committed offset leaves out, as a log line; null for nothing. Where the log has deleted
 * it there is no other place to start than the beginning, and the records between are lost to every reader: reported,
 * not asked about.
 */
export function lossAtStart(partition: AssignedPartition, stored: readonly Position[]): string | null {
  const { topic, partition: number, committedOffset, earliestOffset } = partition
  if (committedOffset === null || committedOffset >= earliestOffset) return null
  if (stored.some((p) => p.topic === topic && p.partition === number)) return null
  const gap = earliestOffset - committedOffset
  return `Group stopped at ${committedOffset} of ${topic}/${number}, but the log starts at ${earliestOffset}: ${gap} records were deleted unread`
}

/** The value of `--from`: an end of the log, or the record time (epoch milliseconds) of the first record to read. */
export type StartFrom = 'earliest' | 'latest' | number

/** Where to begin is undecided and must not be guessed. Reading has not begun. */
export class StartUndecided extends Error {
  override readonly name = 'StartUndecided'
}

interface Start {
  group: string
  topics: readonly string[]
}

/** Why a first start needs the operator's decision, one line with a remedy; null when it needs none. */
export async function whyUndecided(log: EventLog, store: EventStore, start: Start): Promise<string | null> {
  const unknown = await topicsWithoutPosition(store, start)
  // The count may be null where counting takes long, which it does not where there is nothing foreign.
  if (unknown.length === 0 || (await store.count()).foreign === 0) return null
  const unread = await unreadOf(log, start.group, unknown)
  if (unread.length === 0) return null
  const names = unread.map(({ name }) => name).join(', ')
  return (
    `Cannot decide where to begin ${names}: ${store.description} holds documents of an older deployment, and group ` +
    `"${start.group}" has committed no offset. Set KAFKA_GROUP to the older processor's group, or say once, with pertoken processor: ` +
    '--from latest (those documents hold what is in the log), --from earliest (they hold nothing of it), ' +
    'or --from TIME (when the older processor stopped)'
  )
}

/**
 * Decides where a first start begins, where `startOf` cannot: by `from`, if given. Returns the topics that begin there.
 * May be repeated, also by several processors at once: the first decision counts. Throws StartUndecided, and what log
 * and store throw.
 */
export async function settleFirstStart(
  log: EventLog,
  store: EventStore,
  start: Start & { from: StartFrom | null },
): Promise<string[]> {
  const { from } = start
  if (from === null) {
    const reason = await whyUndecided(log, store, start)
    if (reason !== null) throw new StartUndecided(reason)
    return []
  }
  const unread = await unreadOf(log, start.group, await topicsWithoutPosition(store, start))
  for (const topic of unread) await store.beginPositions(start.group, await positionsFrom(log, topic, from))
  return unread.map(({ name }) => name)
}

async function topicsWithoutPosition(store: EventStore, { group, topics }: Start): Promise<string[]> {
  const stored = await store.readPositions(group)
  return topics.filter((topic) => !stored.some((position) => position.topic === topic))
}

/** The topics that have records and no committed offset of the group. */
async function unreadOf(log: EventLog, group: string, topics: readonly string[]): Promise<TopicDescription[]> {
  if (topics.length === 0) return []
  const described = await log.describe(topics, group)
  return described.filter(
    ({ partitions }) =>
      partitions.every(({ committedOffset }) => committedOffset === null) &&
      partitions.some(({ earliestOffset, endOffset }) => endOffset > earliestOffset),
  )
}

async function positionsFrom(log: EventLog, topic: TopicDescription, from: StartFrom): Promise<Position[]> {
  const timed = typeof from === 'number' ? await log.offsetsAt(topic.name, from) : []
  return topic.partitions.map(({ partition, earliestOffset, endOffset }) => {
    const atTime = timed.find((one) => one.partition === partition)?.offset ?? endOffset
    const offset = from === 'earliest' ? earliestOffset : from === 'latest' ? endOffset : atTime
    return { topic: topic.name, topicId: topic.topicId, partition, offset }
  })
}

export interface StartUp {
  eventLog: EventLog
  store: EventStore
  closedDays: ClosedDays
  group: string
  topicMetric: string
  topicToken: string
  topicDead: string
  partitions: number
  from?: StartFrom | undefined
  log: Logger
}

/** How long reading waits for the topics to be created, milliseconds. */
const TOPICS_PATIENCE_MS = 2000

/**
 * Prepares store and topics and settles where a first start begins, each repeated until it succeeds or the signal
 * aborts; then it returns early. Throws StartUndecided where no operator has decided where to begin.
 */
export async function startUp(
  { eventLog, store, closedDays, group, topicMetric, topicToken, topicDead, partitions, log, ...start }: StartUp,
  { retrier, signal, giveUp }: { retrier: Retrier; signal: AbortSignal; giveUp: AbortSignal },
): Promise<void> {
  const whileStarting = AbortSignal.any([signal, giveUp])
  try {
    const { warnings } = await retrier.run('prepare the store', whileStarting, () => store.prepare())
    for (const warning of warnings) log.warn({}, warning)
    await retrier.run('read the closed days', whileStarting, () => closedDays.refreshIfOlderThan(0))
    if (signal.aborted) return
    const from = start.from ?? null
    const begun = await retrier.run('look where to begin', whileStarting, () =>
      settleFirstStart(eventLog, store, { group, topics: [topicMetric, topicToken], from }).catch((error: unknown) => {
        // Waiting does not help against this one.
        if (error instanceof StartUndecided) return error
        throw error
      }),
    )
    if (begun instanceof StartUndecided) throw begun
    if (begun.length > 0) log.info({ topics: begun, from }, 'Starts these topics where --from puts them')
    else if (from !== null) log.info({ from }, 'Resumes where it stopped: where to begin was decided before')
  } catch (error) {
    if (!signal.aborted) throw error
    return
  }
  const topics = [topicMetric, topicToken, topicDead].map((name) => ({ name, partitions }))
  const created = retrier
    .run('make topics', whileStarting, () => eventLog.ensureTopics(topics))
    .then((names) => void (names.length > 0 && log.info({ topics: names, partitions }, 'Made topics')))
    .catch(() => {})
  // Topics that may not be created here may be created by others: reading begins, the failure stays visible.
  await Promise.race([created, sleep(TOPICS_PATIENCE_MS, undefined, { ref: false })])
}
