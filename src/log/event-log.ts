// The log: where events come from and go to. Kafka's terms and semantics throughout (topic, partition, offset, group,
// lag, commit), for the embedded log too. Two adapters: kafka/kafka-log.ts and sqlite/sqlite-log.ts; one contract
// suite, test/log/event-log.contract.ts, runs over both.
//
// Ownership: the caller of `subscribe` owns the subscription and closes it before the log. Buffers in a record are
// valid for as long as the record is referenced, and never written to.

/** A record as read. Offsets are below 2⁵³, so plain numbers. */
export interface LogRecord {
  offset: number
  /** The log's timestamp of the record, epoch milliseconds: create time or append time, as the topic is configured. */
  timestampMs: number
  key: Buffer | null
  value: Buffer | null
  /** Null when there are none, the usual case. */
  headers: ReadonlyMap<string, Buffer | null> | null
}

/** Consecutive records of one partition, from one read. */
export interface RecordBatch {
  topic: string
  /** The log's own id of the topic: a recreated topic has another one. */
  topicId: string
  partition: number
  records: LogRecord[]
  /** Offset of the first record that the batch could have held: the requested one. */
  fromOffset: number
  /** Position after the batch. Larger than the last offset + 1 where the log has gaps (compaction, markers). */
  nextOffset: number
  /** End of the partition when the batch was read. */
  highWatermark: number
}

/** A record to append. */
export interface NewRecord {
  key: string | Buffer | null
  value: Buffer | null
  headers?: Readonly<Record<string, string | Buffer>>
  /** When absent, chosen by the key as Kafka's Java client does (murmur2); without key, partitions take turns. */
  partition?: number
}

export interface TopicPartition {
  topic: string
  partition: number
}

/** Position of a reader: the next offset to read of a partition of the topic with this id. */
export interface Position extends TopicPartition {
  topicId: string
  offset: number
}

/** A partition assigned to this member, with what is needed to decide where to start. */
export interface AssignedPartition extends TopicPartition {
  topicId: string
  /** The group's committed offset in the log; null when there is none. */
  committedOffset: number | null
  earliestOffset: number
  /** End of the log: the offset that the next record will get. */
  endOffset: number
}

/** Where to start a partition: at an offset, or not at all, with the reason that /health shows. */
export type StartDecision = { offset: number } | { blocked: string }

export interface SubscribeOptions {
  group: string
  topics: readonly string[]
  /**
   * Called after each assignment, before anything of it is read, with all partitions that are new to this member;
   * returns one decision for each, in order. Called again for a blocked one, periodically and when the topic changes.
   */
  onAssigned(partitions: readonly AssignedPartition[]): Promise<StartDecision[]>
  /** Called with partitions that this member has lost; what `next` has returned of them may still be processed. */
  onRevoked?(partitions: readonly TopicPartition[]): void
  /** Called (bounded by a few seconds) before partitions may move: to finish and commit what can be. */
  flush?(): Promise<void>
  /** Upper bound of one `next`, bytes over all partitions. */
  maxBytes?: number
  signal: AbortSignal
}

/** Lag of one partition. */
export interface PartitionLag extends TopicPartition {
  /** Next offset that `next` will return; null when the partition is not this member's or is blocked. */
  position: number | null
  endOffset: number
}

/** A current problem of the subscription, for /health. */
export interface LogProblem {
  /** Stable code. `security`: a login, a certificate or a right is refused. */
  code: 'unreachable' | 'security' | 'topic_missing' | 'position_invalid' | 'group_incompatible' | 'stalled'
  message: string
}

/** A membership in a consumer group. It survives broken connections, restarts of the log and rebalances. */
export interface Subscription {
  /**
   * The next batches (of any partitions, each partition's in order), at most `maxBytes`. Resolves to [] after about
   * 250 ms without data, and at once when the signal aborts. Not calling it is the back-pressure: at most one response
   * is read ahead. Never rejects for a transient fault; those are in `problems`.
   */
  next(): Promise<RecordBatch[]>
  /**
   * Commits how far all is stored: for lag tools, for `final` in answers, and for the embedded log's pruning, never as
   * the position. Best effort: never throws, never waits long.
   */
  commit(positions: readonly Position[]): Promise<void>
  /** Partitions currently assigned to this member. */
  readonly assigned: readonly TopicPartition[]
  /** Whether this member has every partition of every topic. */
  readonly ownsAll: boolean
  lag(): PartitionLag[]
  readonly problems: readonly LogProblem[]
  /** Leaves the group. */
  close(): Promise<void>
}

export interface TopicSpec {
  name: string
  partitions: number
  replication?: number
}

export interface PartitionDescription {
  partition: number
  earliestOffset: number
  endOffset: number
  /** The given group's committed offset. */
  committedOffset: number | null
}

export interface TopicDescription {
  name: string
  topicId: string
  partitions: PartitionDescription[]
}

/** A failure of the log; `retriable`: the same call may succeed later. */
export class LogError extends Error {
  readonly retriable: boolean
  /** Whether the message names a remedy. */
  readonly hasRemedy: boolean

  constructor(message: string, options: { retriable: boolean; hasRemedy?: boolean; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.name = 'LogError'
    this.retriable = options.retriable
    this.hasRemedy = options.hasRemedy ?? false
  }
}

export interface EventLog {
  /** For log lines and /health: `kafka at localhost:9092`. */
  readonly description: string
  /** Creates missing topics; existing ones are left as they are. Returns the names of the created ones. */
  ensureTopics(topics: readonly TopicSpec[]): Promise<string[]>
  /** Describes topics; one that does not exist is left out. */
  describe(topics: readonly string[], group?: string): Promise<TopicDescription[]>
  /**
   * Appends records in order; resolves when they are durable (Kafka: acks all). Throws a LogError when that is unknown;
   * the caller then repeats the call, and readers see ids twice, which is harmless.
   */
  append(topic: string, records: readonly NewRecord[]): Promise<void>
  /** Joins a group. Returns at once; joining continues in the background and its faults are in `problems`. */
  subscribe(options: SubscribeOptions): Subscription
  /** Sets a group's committed offsets; throws a LogError while the group has members. */
  resetOffsets(group: string, positions: readonly Position[]): Promise<void>
  /** First offset whose record time is at or after the instant, per partition; the end when there is none. */
  offsetsAt(topic: string, timestampMs: number): Promise<{ partition: number; offset: number }[]>
  /** Resolves when the log responds; throws a LogError when it does not. */
  ping(): Promise<void>
  close(): Promise<void>
}
