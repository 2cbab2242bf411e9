// THE LOOP. Reads batches from the log, cuts them into steps, decodes and prices them in order, and hands them to the
// steps in flight, which write documents and dead letters, then marks, then positions, then tell the log. It never reads
// on past a step that fails: the step is repeated for ever, the loop waits, /health says so. SIGTERM drains.
//
// A little over 300 lines, so that the loop, its start and its drain are read in one place.
//
//   next() → stepsOf() → admit (host, live price) → in flight: documents + dead letters → marks → positions → commit

import { setTimeout as sleep } from 'node:timers/promises'
import { crc32 } from 'node:zlib'
import type { EventKind, GpuDocument, TokenDocument } from '../../domain/events/documents.ts'
import type { PriceOfSlot } from '../../domain/live/sliding-window.ts'
import type {
  AssignedPartition,
  EventLog,
  LogRecord,
  StartDecision,
  Subscription,
  TopicSpec,
} from '../../log/event-log.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { EventStore } from '../../store/event-store.ts'
import { DAY_GATE_MAX_AGE_MS, DayGate } from '../day-gate.ts'
import { Retrier } from '../retry.ts'
import { writeDeadLetters } from './dead-letters.ts'
import { type Health, healthOf } from './health.ts'
import { type Checkpoint, InFlight } from './in-flight.ts'
import { HOST_MEMORY_MS, LiveWindow } from './live-window.ts'
import { Outcomes } from './outcomes.ts'
import { lossAtStart, type StartFrom, StartUndecided, settleFirstStart, startOf } from './start.ts'
import { refuseClosedDays, type Step, stepsOf } from './step.ts'

export interface ProcessorOptions {
  group: string
  topicMetric: string
  topicToken: string
  topicDead: string
  /** Partitions of topics that are made at the start. */
  partitions: number
  windowSeconds: number
  allowedLatenessSeconds: number
  /** RAW_RETENTION_DAYS: whether days of events may be closed while this runs. 0: none. */
  retentionDays?: number
  /** Host of events that name none; null: inferred where possible. */
  defaultHost: string | null
  /** Where to begin topics that neither store nor group know a place of; absent: run() may reject with StartUndecided. */
  from?: StartFrom | undefined
  priceOf: PriceOfSlot
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
/** Marks and positions are written at most this often while events keep coming, milliseconds. */
const FINISH_INTERVAL_MS = 100
/** Bytes that one read of the log may bring. */
const MAX_READ_BYTES = 2 * 1024 * 1024
const DRAIN_MS = 10_000
/** How long reading waits for the topics to be made, milliseconds. */
const TOPICS_PATIENCE_MS = 2000

export class Processor {
  readonly outcomes = new Outcomes()
  readonly #log: EventLog
  readonly #store: EventStore
  readonly #options: ProcessorOptions
  readonly #now: () => number
  readonly #live: LiveWindow
  readonly #gate: DayGate
  readonly #retrier: Retrier
  readonly #inFlight: InFlight
  /** Aborts writes that are being repeated: later than the loop's own signal, by the time that a drain may take. */
  readonly #giveUp = new AbortController()
  #subscription: Subscription | null = null
  /** The last word to the log of how far all is stored. */
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
    this.#live = new LiveWindow(options)
    this.#gate = new DayGate(store.ledger, this.#now)
    this.#retrier = new Retrier(options.log, this.#now)
    this.#inFlight = new InFlight(
      {
        documents: (step) => this.#repeat('write documents to the store', () => this.#writeDocuments(step)),
        deadLetters: (step) => this.#repeat('write dead letters', () => this.#writeDeadLetters(step)),
        marks: (cells) =>
          this.#repeat('write marks to the store', () =>
            store.ledger.insertMarks('minute', cells.dirtyMinutes(), this.#now()),
          ),
        positions: (positions) =>
          this.#repeat('write positions to the store', () => store.advancePositions(options.group, positions)),
        commit: async (positions) => {
          this.#committing = this.#subscription?.commit(positions)
        },
      },
      {
        maxWrites: MAX_WRITES,
        maxOpen: MAX_OPEN_STEPS,
        finishIntervalMs: FINISH_INTERVAL_MS,
        checkpoint: options.checkpoint,
      },
    )
  }

  /**
   * Runs until the signal aborts, then drains: finishes what was read, commits, leaves the group. Rejects with GaveUp
   * when the drain took longer than it may; what was not finished comes again at the next start.
   */
  async run(signal: AbortSignal): Promise<void> {
    const stop = () =>
      void sleep(this.#options.drainMs ?? DRAIN_MS, undefined, { ref: false }).then(() => this.#giveUp.abort())
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
    try {
      await this.#prepare(signal)
      if (signal.aborted) return
      this.#subscription = this.#subscribe(signal)
      this.#phase = 'running'
      this.#runningSinceMs = this.#now()
      while (!signal.aborted) await this.#readOnce(this.#subscription, signal)
      this.#phase = 'draining'
      await this.#inFlight.idle()
      // Who reads on from the log's own offsets, such as an older processor, would read again what is not told here.
      await this.#committing
    } finally {
      await this.#subscription?.close()
      this.#phase = 'stopped'
    }
  }

  /** The live view: current windows by model and by slot. */
  live(): ReturnType<LiveWindow['window']['live']> & { as_of: string; stale: boolean; window_s: number } {
    const nowMs = this.#now()
    const { windowSeconds } = this.#options
    const stale =
      this.#lastReadMs === null || nowMs - this.#lastReadMs > windowSeconds * 1000 || this.health().status !== 'ok'
    return { as_of: new Date(nowMs).toISOString(), window_s: windowSeconds, stale, ...this.#live.window.live(nowMs) }
  }

  /** The truth about this processor, for /health. */
  health(): Health {
    return healthOf({
      phase: this.#phase,
      failing: this.#retrier.failing,
      subscription: this.#subscription,
      runningMs: this.#now() - this.#runningSinceMs,
      outcomes: this.outcomes,
      lastEventMs: this.#lastEventMs,
      openSteps: this.#inFlight.openSteps,
      slots: this.#live.window.slotCount,
    })
  }

  async #prepare(signal: AbortSignal): Promise<void> {
    const { topicMetric, topicToken, topicDead, partitions, log } = this.#options
    const topics: TopicSpec[] = [topicMetric, topicToken, topicDead].map((name) => ({ name, partitions }))
    const whileStarting = AbortSignal.any([signal, this.#giveUp.signal])
    await this.#retrier
      .run('prepare the store', whileStarting, () => this.#store.prepare())
      .then(({ warnings }) =>
        warnings.forEach((warning) => {
          log.warn({}, warning)
        }),
      )
      .catch((error: unknown) => this.#unlessStopping(signal, error))
    await this.#retrier
      .run('read the closed days', whileStarting, () => this.#gate.refreshIfOlderThan(0))
      .catch((error: unknown) => this.#unlessStopping(signal, error))
    if (!signal.aborted) await this.#settleStart(whileStarting).catch((error) => this.#unlessStopping(signal, error))
    const made = this.#retrier
      .run('make topics', whileStarting, () => this.#log.ensureTopics(topics))
      .then((names) => void (names.length > 0 && log.info({ topics: names, partitions }, 'Made topics')))
      .catch(() => {})
    // Topics that may not be made by us may be made by somebody else: reading begins, the failure stays visible.
    await Promise.race([made, sleep(TOPICS_PATIENCE_MS, undefined, { ref: false })])
  }

  /** Throws StartUndecided where nobody has said where to begin, and it must not be guessed. */
  async #settleStart(signal: AbortSignal): Promise<void> {
    const { group, topicMetric, topicToken, from = null, log } = this.#options
    const start = { group, topics: [topicMetric, topicToken], from }
    const begun = await this.#retrier.run('look where to begin', signal, () =>
      settleFirstStart(this.#log, this.#store, start).catch((error: unknown) => {
        // This one does not pass by waiting.
        if (error instanceof StartUndecided) return error
        throw error
      }),
    )
    if (begun instanceof StartUndecided) throw begun
    if (begun.length > 0) log.info({ topics: begun, from }, 'Begins these topics where it was told to')
    else if (from !== null) log.info({ from }, 'Goes on where it stopped: where to begin was decided before')
  }

  #subscribe(signal: AbortSignal): Subscription {
    return this.#log.subscribe({
      group: this.#options.group,
      topics: [this.#options.topicMetric, this.#options.topicToken],
      maxBytes: MAX_READ_BYTES,
      signal,
      onAssigned: (partitions) => this.#decideStarts(partitions, signal),
      onRevoked: () => {
        this.#rebuildNeeded = true
      },
      flush: () => this.#inFlight.idle(),
    })
  }

  async #decideStarts(partitions: readonly AssignedPartition[], signal: AbortSignal): Promise<StartDecision[]> {
    const whileRunning = AbortSignal.any([signal, this.#giveUp.signal])
    const stored = await this.#retrier.run('read positions from the store', whileRunning, () =>
      this.#store.readPositions(this.#options.group),
    )
    const decisions = partitions.map((partition) => startOf(partition, stored))
    for (const partition of partitions) {
      const loss = lossAtStart(partition, stored)
      if (loss !== null) this.#options.log.error({}, loss)
    }
    if (this.#rebuildNeeded && decisions.some((decision) => 'offset' in decision)) {
      await this.#inFlight.written()
      await this.#retrier.run('read the live window from the store', whileRunning, () =>
        this.#live.rebuild(this.#store),
      )
      this.#rebuildNeeded = false
    }
    return decisions
  }

  async #readOnce(subscription: Subscription, signal: AbortSignal): Promise<void> {
    const batches = await subscription.next()
    if (batches.length === 0) {
      if (subscription.problems.length === 0 && subscription.assigned.length > 0) this.#live.caughtUp()
      return
    }
    await this.#options.checkpoint?.('read')
    const { topicMetric } = this.#options
    const context = {
      kindOf: (topic: string): EventKind => (topic === topicMetric ? 'gpu' : 'token'),
      crc32,
      keepsOrigins: (this.#options.retentionDays ?? 0) > 0 || this.#gate.hasClosedDays,
      admitSample: (document: GpuDocument) => this.#admitSample(document),
      admitToken: (document: TokenDocument, record: LogRecord) =>
        this.#admitToken(document, record, subscription.ownsAll),
    }
    this.#lastReadMs = this.#now()
    for (const step of stepsOf(batches, context)) {
      this.outcomes.read += step.records
      await this.#inFlight.add(step)
      // What was read and not yet begun comes again at the next start: a drain must not wait for a whole read.
      if (signal.aborted) return
    }
  }

  #admitSample(document: GpuDocument): void {
    if (document.host === null && this.#options.defaultHost !== null) {
      document.host = this.#options.defaultHost
      document.host_inferred = true
    }
    this.#lastEventMs = Math.max(this.#lastEventMs ?? 0, document.ts.getTime())
    this.#live.window.observe(document)
  }

  #admitToken(document: TokenDocument, record: LogRecord, ownsAll: boolean): void {
    const tsMs = document.ts.getTime()
    if (document.host === null) {
      const gpuIndex = document.gpus?.[0] ?? document.gpu_index!
      const host = this.#options.defaultHost ?? this.#live.window.onlyHostWith(gpuIndex, tsMs, HOST_MEMORY_MS)
      if (host !== null) {
        document.host = host
        document.host_inferred = true
      }
    }
    this.#live.price(document, this.#now())
    if (!ownsAll && record.key === null && document.late !== true) document.partial = true
    this.#lastEventMs = Math.max(this.#lastEventMs ?? 0, tsMs)
  }

  async #writeDocuments(step: Step): Promise<void> {
    // In every try: a processor that was stopped for long must not write into a day that was closed meanwhile.
    await this.#gate.refreshIfOlderThan(DAY_GATE_MAX_AGE_MS)
    if (this.#gate.hasClosedDays) refuseClosedDays(step, (tsMs) => this.#closedReason(tsMs))
    if (step.samples.length + step.tokens.length === 0) return
    const result = await this.#store.writeDocuments(step.samples, step.tokens, step.bytes)
    this.outcomes.stored += result.stored
    this.outcomes.duplicate += result.duplicate
    for (const token of step.tokens) if (token.late === true) this.outcomes.late++
  }

  #closedReason(tsMs: number): string | null {
    const day = this.#gate.closedDay(tsMs)
    return day === null ? null : DayGate.refusalText(day)
  }

  async #writeDeadLetters(step: Step): Promise<void> {
    await writeDeadLetters(this.#log, this.#store, this.#options.topicDead, step.rejected, new Date(this.#now()))
    for (const { refusal } of step.rejected) this.outcomes.reject(refusal.reason)
  }

  #repeat<T>(what: string, work: () => Promise<T>): Promise<T> {
    return this.#retrier.run(what, this.#giveUp.signal, work)
  }

  #unlessStopping(signal: AbortSignal, error: unknown): void {
    if (!signal.aborted) throw error
  }
}
