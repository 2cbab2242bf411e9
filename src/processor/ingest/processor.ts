// THE LOOP. Reads batches from the log, cuts them into steps, decodes and prices their records in order, and hands the
// steps to the writer, which writes documents and dead letters, then marks, then positions, then commits. Decoding is
// synchronous and in the order of the log, so the live window sees events as they came. The loop never reads on past a
// step that fails: the step is repeated for ever, the loop waits, /health reports it. SIGTERM drains.
//
//   next() → stepsOf(): decode → live price → writer.add(): documents + dead letters → marks → positions → commit

import { setTimeout as sleep } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import { decodeRecord } from '../../domain/events/decode.ts'
import type { EventKind, GpuDocument, TokenDocument } from '../../domain/events/event.ts'
import { logIdPrefix } from '../../domain/events/event-id.ts'
import { Rejection } from '../../domain/events/rejection.ts'
import type { AssignedPartition, EventLog, LogRecord, RecordBatch, Subscription } from '../../log/event-log.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import { ClosedDays } from '../closed-days.ts'
import { Retrier } from '../retry.ts'
import { type Health, healthOf } from './health.ts'
import type { LivePrices } from './live-prices.ts'
import { Outcomes } from './outcomes.ts'
import { lossAtStart, type StartFrom, startOf, startUp } from './start.ts'
import { emptyStep, type Step } from './step.ts'
import { type Checkpoint, StepWriter, stepWriters } from './step-writer.ts'

export interface ProcessorOptions {
  group: string
  topicMetric: string
  topicToken: string
  topicDead: string
  /** Partitions of topics that are created at start-up. */
  partitions: number
  /** RAW_RETENTION_DAYS: whether days of events may be closed while this runs. 0: none. */
  retentionDays?: number
  /** Completes events as they pass: host, live price. */
  live: LivePrices
  /**
   * Where to begin topics of which neither store nor group knows a place; absent: run() may reject with StartUndecided.
   */
  from?: StartFrom | undefined
  log: Logger
  now?: () => number
  /** How long a drain may take, milliseconds. */
  drainMs?: number
  /** For tests of crashes: called at each labelled point of a step. */
  checkpoint?: ((label: Checkpoint) => void | Promise<void>) | undefined
}

/** Documents of so many steps are written side by side; two or three fill a MongoDB server, more only cost memory. */
const MAX_WRITES = 3
/** Steps that are read but not finished. */
const MAX_OPEN_STEPS = 16
/** Most records in a step. Measured: 1,000 cost a third more CPU than 3,000, and 8,000 gain nothing but memory. */
const MAX_STEP_RECORDS = 3000
/** Marks and positions are written at most this often while events keep coming, milliseconds. */
const FINISH_INTERVAL_MS = 100
/** Bytes that one read of the log may return. Measured with one broker: 2 MiB is no faster, and costs 50 MB more. */
const MAX_READ_BYTES = 1024 * 1024
const DRAIN_MS = 10_000

export class Processor {
  readonly outcomes = new Outcomes()
  readonly #log: EventLog
  readonly #store: EventStore
  readonly #options: ProcessorOptions
  readonly #now: () => number
  readonly #closedDays: ClosedDays
  readonly #retrier: Retrier
  readonly #writer: StepWriter
  /** Aborts writes that are being repeated: later than the loop's own signal, by the time that a drain may take. */
  readonly #giveUp = new AbortController()
  #subscription: Subscription | null = null
  /** The last commit to the log. */
  #committing: Promise<void> | undefined
  #phase: 'starting' | 'running' | 'draining' | 'stopped' = 'starting'
  #lastEventMs: number | null = null
  #lastReadMs: number | null = null
  #rebuildNeeded = true
  #runningSinceMs = Number.POSITIVE_INFINITY

  constructor(log: EventLog, store: EventStore, options: ProcessorOptions) {
    this.#log = log
    this.#store = store
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#closedDays = new ClosedDays(store.ledger, this.#now)
    this.#retrier = new Retrier(options.log, this.#now)
    const writers = stepWriters({
      log,
      store,
      group: options.group,
      topicDead: options.topicDead,
      closedDays: this.#closedDays,
      outcomes: this.outcomes,
      now: this.#now,
      repeat: (what, work) => this.#retrier.run(what, this.#giveUp.signal, work),
      commit: async (positions) => {
        this.#committing = this.#subscription?.commit(positions)
      },
    })
    this.#writer = new StepWriter(writers, {
      maxWrites: MAX_WRITES,
      maxOpen: MAX_OPEN_STEPS,
      finishIntervalMs: FINISH_INTERVAL_MS,
      checkpoint: options.checkpoint,
    })
  }

  /**
   * Runs until the signal aborts, then drains: finishes what was read, commits, leaves the group. Rejects with GaveUp
   * when the drain took longer than it may; what was not finished is delivered again at the next start.
   */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () =>
      void sleep(this.#options.drainMs ?? DRAIN_MS, undefined, { ref: false }).then(() => this.#giveUp.abort())
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
    try {
      await startUp(
        { ...this.#options, eventLog: this.#log, store: this.#store, closedDays: this.#closedDays },
        { retrier: this.#retrier, signal, giveUp: this.#giveUp.signal },
      )
      if (signal.aborted) return
      this.#subscription = this.#subscribe(signal)
      this.#phase = 'running'
      this.#runningSinceMs = this.#now()
      while (!signal.aborted) await this.#readOnce(this.#subscription, signal)
      this.#phase = 'draining'
      await this.#writer.idle()
      // A reader that resumes from the log's own offsets, such as an older processor, would read again what is not
      // committed.
      await this.#committing
    } finally {
      await this.#subscription?.close()
      this.#phase = 'stopped'
    }
  }

  /** The live view: current windows by model and by slot. */
  live(): ReturnType<LivePrices['live']> & { as_of: string; stale: boolean } {
    const nowMs = this.#now()
    const { live } = this.#options
    const silentMs = this.#lastReadMs === null ? Number.POSITIVE_INFINITY : nowMs - this.#lastReadMs
    const stale = silentMs > live.windowSeconds * 1000 || this.health().status !== 'ok'
    return { as_of: new Date(nowMs).toISOString(), stale, ...live.live(nowMs) }
  }

  /** The state of this processor, for /health. */
  health(): Health {
    return healthOf({
      phase: this.#phase,
      failing: this.#retrier.failing,
      subscription: this.#subscription,
      runningMs: this.#now() - this.#runningSinceMs,
      outcomes: this.outcomes,
      lastEventMs: this.#lastEventMs,
      openSteps: this.#writer.openSteps,
      slots: this.#options.live.slotCount,
    })
  }

  #subscribe(signal: AbortSignal): Subscription {
    return this.#log.subscribe({
      group: this.#options.group,
      topics: [this.#options.topicMetric, this.#options.topicToken],
      maxBytes: MAX_READ_BYTES,
      signal,
      onAssigned: (partitions) => this.#decideStarts(partitions, AbortSignal.any([signal, this.#giveUp.signal])),
      onRevoked: () => {
        this.#rebuildNeeded = true
      },
      flush: () => this.#writer.idle(),
    })
  }

  async #decideStarts(partitions: readonly AssignedPartition[], signal: AbortSignal) {
    const stored = await this.#retrier.run('read positions from the store', signal, () =>
      this.#store.readPositions(this.#options.group),
    )
    const decisions = partitions.map((partition) => startOf(partition, stored))
    for (const partition of partitions) {
      const loss = lossAtStart(partition, stored)
      if (loss !== null) this.#options.log.error({}, loss)
    }
    if (this.#rebuildNeeded && decisions.some((decision) => 'offset' in decision)) {
      await this.#writer.written()
      await this.#retrier.run('read the live window from the store', signal, () =>
        this.#options.live.rebuild(this.#store),
      )
      this.#rebuildNeeded = false
    }
    return decisions
  }

  async #readOnce(subscription: Subscription, signal: AbortSignal): Promise<void> {
    const batches = await subscription.next()
    if (batches.length === 0) {
      if (subscription.problems.length === 0 && subscription.assigned.length > 0) this.#options.live.caughtUp()
      return
    }
    await this.#options.checkpoint?.('read')
    this.#lastReadMs = this.#now()
    const { topicMetric, live, retentionDays = 0 } = this.#options
    const context: StepContext = {
      kindOf: (topic) => (topic === topicMetric ? 'gpu' : 'token'),
      live,
      ownsAll: () => subscription.ownsAll,
      now: this.#now,
      keepsOrigins: retentionDays > 0 || this.#closedDays.hasClosedDays,
    }
    for (const step of stepsOf(batches, context)) {
      this.outcomes.read += step.records
      if (step.newestMs !== null) this.#lastEventMs = Math.max(this.#lastEventMs ?? 0, step.newestMs)
      await this.#writer.add(step)
      // What was read and not yet begun is delivered again at the next start: a drain must not wait for a whole read.
      if (signal.aborted) return
    }
  }
}

export interface StepContext {
  kindOf(topic: string): EventKind
  live: Pick<LivePrices, 'observe' | 'price'>
  /** Whether this process reads every partition; if not, the price of an event without key may be based on a part. */
  ownsAll(): boolean
  now(): number
  /** Whether records must be kept beside their documents, because a day may be closed before these are written. */
  keepsOrigins: boolean
}

/** Cuts what one read returned into steps, in order, and decodes and prices their records. */
export function* stepsOf(batches: readonly RecordBatch[], context: StepContext): Generator<Step> {
  let step = emptyStep()
  for (const batch of batches) {
    const { topic, topicId, partition, records } = batch
    const kind = context.kindOf(topic)
    const idPrefix = logIdPrefix(batch)
    let from = 0
    do {
      const to = Math.min(records.length, from + MAX_STEP_RECORDS - step.records)
      for (let i = from; i < to; i++) {
        const record = records[i]!
        step.bytes += record.value?.length ?? 0
        const document = decodeRecord(kind, idPrefix, record, crc32, context.now)
        if (document instanceof Rejection) step.rejected.push({ batch, record, refusal: document })
        else if (kind === 'gpu') addSample(step, document as GpuDocument, context)
        else addToken(step, document as TokenDocument, record, context)
        if (context.keepsOrigins && !(document instanceof Rejection))
          (kind === 'gpu' ? step.sampleOrigins : step.tokenOrigins).push({ batch, record })
      }
      step.records += to - from
      const offset = to === records.length ? batch.nextOffset : records[to - 1]!.offset + 1
      step.positions.push({ topic, topicId, partition, offset })
      from = to
      if (step.records >= MAX_STEP_RECORDS) {
        yield step
        step = emptyStep()
      }
    } while (from < records.length)
  }
  if (step.positions.length > 0) yield step
}

function addSample(step: Step, sample: GpuDocument, { live }: StepContext): void {
  const tsMs = sample.ts.getTime()
  live.observe(sample)
  step.samples.push(sample)
  step.cells.touchAround(sample.host, tsMs)
  if (step.newestMs === null || tsMs > step.newestMs) step.newestMs = tsMs
}

function addToken(step: Step, token: TokenDocument, record: LogRecord, { live, now, ownsAll }: StepContext): void {
  const tsMs = token.ts.getTime()
  live.price(token, now())
  if (record.key === null && token.late !== true && !ownsAll()) token.partial = true
  step.tokens.push(token)
  step.cells.touchToken(token)
  if (step.newestMs === null || tsMs > step.newestMs) step.newestMs = tsMs
}
