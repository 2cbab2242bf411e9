// Writes steps. Documents of a few steps are written side by side; once written, steps are finished in the order they
// were read: one mark write for all that are ready, then their positions, then the log's commit. So a position is
// stored only when every record before it is durably stored or rejected, and marked. Finishing is grouped (at most once
// in `finishIntervalMs`): a mark and a position cost the same for one step as for twenty, and a crash between costs
// only a redelivery. Bounded: `maxWrites` side by side, `maxOpen` unfinished steps, then `add` waits: the
// back-pressure.

import { setTimeout as sleep } from 'node:timers/promises'
import type { GpuDocument, TokenDocument } from '../../domain/events/event.ts'
import { TouchedCells } from '../../domain/ledger/buckets.ts'
import type { EventLog, Position } from '../../log/event-log.ts'
import type { EventStore } from '../../store/event-store.ts'
import { CLOSED_DAYS_MAX_AGE_MS, type ClosedDays } from '../closed-days.ts'
import { writeDeadLetters } from './dead-letters.ts'
import type { Outcomes } from './outcomes.ts'
import { type Origin, type Step, touchExisting } from './step.ts'

/** Points between which a crash must be harmless; tests kill the process there. */
export type Checkpoint = 'read' | 'documents' | 'dead-letters' | 'marks' | 'positions' | 'committed'

/** The five writes of a step, in their order. Each is repeated until it succeeds, or rejects for good. */
export interface StepWriters {
  documents(step: Step): Promise<void>
  deadLetters(step: Step): Promise<void>
  marks(cells: TouchedCells): Promise<void>
  positions(positions: readonly Position[]): Promise<void>
  commit(positions: readonly Position[]): Promise<void>
}

export interface StepWriterOptions {
  maxWrites: number
  maxOpen: number
  finishIntervalMs: number
  checkpoint?: ((label: Checkpoint) => void | Promise<void>) | undefined
}

export class StepWriter {
  readonly #writers: StepWriters
  readonly #options: StepWriterOptions
  /** Unfinished steps, oldest first. */
  readonly #open: Step[] = []
  #writing = 0
  #finishing: Promise<void> | null = null
  #lastFinishMs = 0
  #hurry = false
  #failure: unknown = null
  #waiters: (() => void)[] = []

  constructor(writers: StepWriters, options: StepWriterOptions) {
    this.#writers = writers
    this.#options = options
  }

  get openSteps(): number {
    return this.#open.length
  }

  /** Starts a step; resolves when there is room for the next one. Rejects once a writer gave up. */
  async add(step: Step): Promise<void> {
    this.#open.push(step)
    this.#writing++
    void this.#write(step)
    while (this.#failure === null && this.#isFull()) await this.#changed()
    this.#throwFailure()
  }

  /** Resolves when every step is finished, without waiting for the finish interval. Rejects once a writer gave up. */
  async idle(): Promise<void> {
    this.#hurry = true
    try {
      while (this.#failure === null && this.#open.length > 0) {
        this.#startFinishing()
        await this.#changed()
      }
      this.#throwFailure()
    } finally {
      this.#hurry = false
    }
  }

  /** Resolves when the documents of all steps are written; they may still wait to be marked. */
  async written(): Promise<void> {
    while (this.#failure === null && this.#writing > 0) await this.#changed()
  }

  async #write(step: Step): Promise<void> {
    try {
      await this.#writers.documents(step)
      await this.#options.checkpoint?.('documents')
      if (step.rejected.length > 0) {
        await this.#writers.deadLetters(step)
        await this.#options.checkpoint?.('dead-letters')
      }
      step.done = true
      // Only what marks and positions need stays until the step is finished.
      step.samples = []
      step.tokens = []
      step.sampleOrigins = []
      step.tokenOrigins = []
      step.rejected = []
    } catch (error) {
      this.#failure ??= error
    }
    this.#writing--
    this.#startFinishing()
    this.#notify()
  }

  #startFinishing(): void {
    if (this.#finishing !== null || this.#open[0]?.done !== true) return
    this.#finishing = this.#finish()
      .catch((error: unknown) => {
        this.#failure ??= error
      })
      .finally(() => {
        this.#finishing = null
        this.#notify()
        if (this.#failure === null) this.#startFinishing()
      })
  }

  async #finish(): Promise<void> {
    const waitMs = this.#lastFinishMs + this.#options.finishIntervalMs - performance.now()
    if (waitMs > 0 && !this.#hurry && this.#open.length < this.#options.maxOpen) {
      await Promise.race([sleep(waitMs), this.#urgent()])
    }
    this.#lastFinishMs = performance.now()
    let count = 0
    const cells = new TouchedCells()
    const positions = new Map<string, Position>()
    for (; this.#open[count]?.done === true; count++) {
      const step = this.#open[count]!
      cells.addAll(step.cells)
      for (const position of step.positions) {
        positions.set(`${position.topicId}/${position.partition}`, position)
      }
    }
    const reached = [...positions.values()]
    if (!cells.isEmpty) await this.#writers.marks(cells)
    await this.#options.checkpoint?.('marks')
    await this.#writers.positions(reached)
    await this.#options.checkpoint?.('positions')
    this.#open.splice(0, count)
    this.#notify()
    await this.#writers.commit(reached)
    await this.#options.checkpoint?.('committed')
  }

  /** Resolves when finishing should not wait any longer: someone drains, or there is no room left. */
  async #urgent(): Promise<void> {
    while (!this.#hurry && this.#open.length < this.#options.maxOpen && this.#failure === null) await this.#changed()
  }

  #isFull(): boolean {
    return this.#writing >= this.#options.maxWrites || this.#open.length >= this.#options.maxOpen
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  #notify(): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const resolve of waiters) resolve()
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure
  }
}

export interface StepTarget {
  log: EventLog
  store: EventStore
  group: string
  topicDead: string
  closedDays: ClosedDays
  outcomes: Outcomes
  now: () => number
  /** Repeats what fails for a passing reason; `what` names it in messages. */
  repeat<T>(what: string, work: () => Promise<T>): Promise<T>
  commit(positions: readonly Position[]): Promise<void>
}

/** The writes to log and store, counted by outcome. */
export function stepWriters({ log, store, outcomes, repeat, ...target }: StepTarget): StepWriters {
  return {
    documents: (step) =>
      repeat('write documents to the store', async () => {
        // In every try: a processor that was stopped for long must not write into a day that was closed meanwhile.
        await target.closedDays.refreshIfOlderThan(CLOSED_DAYS_MAX_AGE_MS)
        if (target.closedDays.hasClosedDays) rejectClosedDays(step, target.closedDays)
        if (step.samples.length + step.tokens.length === 0) return
        const { stored, duplicate, existing } = await store.writeDocuments(step.samples, step.tokens, step.bytes)
        touchExisting(step.cells, existing)
        outcomes.stored += stored
        outcomes.duplicate += duplicate
        for (const token of step.tokens) if (token.late === true) outcomes.late++
      }),
    deadLetters: (step) =>
      repeat('write dead letters', async () => {
        await writeDeadLetters(log, store, target.topicDead, step.rejected, new Date(target.now()))
        for (const { refusal } of step.rejected) outcomes.reject(refusal.reason)
      }),
    marks: (cells) =>
      repeat('write marks to the store', () => store.ledger.insertMarks('minute', cells.dirtyMinutes(), target.now())),
    positions: (positions) =>
      repeat('write positions to the store', () => store.advancePositions(target.group, positions)),
    commit: (positions) => target.commit(positions),
  }
}

/** Removes the documents of closed days from a step and rejects their records. */
function rejectClosedDays(step: Step, closedDays: ClosedDays): void {
  const keep = <D extends GpuDocument | TokenDocument>(documents: D[], origins: Origin[]): [D[], Origin[]] => {
    const refusals = documents.map((document) => closedDays.refusalOf(document))
    if (refusals.every((refusal) => refusal === null)) return [documents, origins]
    if (origins.length < documents.length) {
      // Another processor has retention, this one has not: it must read the events again to reject them with their
      // bytes.
      throw new Error(
        'A day was closed while its events were in flight: set RAW_RETENTION_DAYS here as well and restart',
      )
    }
    for (const [i, refusal] of refusals.entries()) if (refusal !== null) step.rejected.push({ ...origins[i]!, refusal })
    return [documents.filter((_, i) => refusals[i] === null), origins.filter((_, i) => refusals[i] === null)]
  }
  const [samples, sampleOrigins] = keep(step.samples, step.sampleOrigins)
  const [tokens, tokenOrigins] = keep(step.tokens, step.tokenOrigins)
  Object.assign(step, { samples, sampleOrigins, tokens, tokenOrigins })
}
