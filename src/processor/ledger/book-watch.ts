// What makes cells dirty besides events, watched by each keeper: a revision whose cells are not all marked (who repriced
// died), a new version that counts from an instant whose cells may exist already (made by a machine with a slow clock), and
// time that a rule claims and nobody marks. Claimed minutes are looked at once after their end, going forward with the
// clock; and backward, an hour a pass, to the beginning of the raw events: after each start and each change of the books.

import { CELL_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import type { KeeperDependencies } from './minute-keeper.ts'
import { commitmentsWithin, invalidateMissingCommitments, invalidateRepriced } from './stale-cells.ts'

/** A revision that is younger is left to who made it, milliseconds. */
const REVISION_GRACE_MS = 60_000
/** Versions that are older than this at the keeper's start were watched by others. */
const NEW_VERSION_MS = 3_600_000
/** Claimed minutes that events mark too are computed by then, and not marked a second time. */
const CLAIM_GRACE_MS = 45_000
/** Hours without claims that a pass goes back over, which costs no read. */
const MAX_HOURS_BACK = 200

export class BookWatch {
  readonly #parts: KeeperDependencies
  readonly #lagMs: number
  readonly #seenVersions = new Set<number>()
  #seenRevisions = 0
  /** Claimed minutes before this were looked at going forward, and from `#backMs` on going backward. */
  #frontMs: number | null = null
  #backMs = Number.NaN
  /** Where going backward ends; null until known. */
  #floorMs: number | null = null

  /** `lagMs`: minutes are computed this long after their end, see DueRule. */
  constructor(parts: KeeperDependencies, lagMs: number) {
    this.#parts = parts
    this.#lagMs = lagMs
  }

  /** To be called once a pass, after the books were read. Rejects with a StoreError; then it does the rest next time. */
  async pass(): Promise<void> {
    const { books, now } = this.#parts
    if (books.versions.length === 0) return
    const nowMs = now()
    await this.#finishRevisions(nowMs)
    await this.#markSinceNewVersions(nowMs)
    if (books.hasClaims) await this.#sweep(nowMs)
  }

  async #finishRevisions(nowMs: number): Promise<void> {
    const { ledger, books, log } = this.#parts
    for (const { revision, fromMs, toMs, atMs, summary } of books.revisions) {
      const known = summary as { done?: boolean } | null
      if (known?.done === true || atMs + REVISION_GRACE_MS > nowMs) continue
      const marked = await invalidateRepriced(ledger, books, { fromMs, toMs, nowMs })
      await ledger.updateRevisionSummary(revision, { ...known, done: true })
      log.warn({ revision, cells: marked }, 'Marked the cells of a revision that was left unfinished')
    }
  }

  async #markSinceNewVersions(nowMs: number): Promise<void> {
    const { ledger, books } = this.#parts
    for (const { version, fromMs, atMs } of books.versions) {
      if (this.#seenVersions.has(version)) continue
      const isYoung = fromMs !== null && atMs > nowMs - NEW_VERSION_MS
      if (isYoung && fromMs < nowMs) await invalidateRepriced(ledger, books, { fromMs, toMs: nowMs, nowMs })
      this.#seenVersions.add(version)
      this.#restart()
    }
    if (books.revisions.length !== this.#seenRevisions) this.#restart()
    this.#seenRevisions = books.revisions.length
  }

  /** Goes backward again from where going forward is. */
  #restart(): void {
    this.#backMs = this.#frontMs ?? Number.NaN
    this.#floorMs = null
  }

  async #sweep(nowMs: number): Promise<void> {
    const { ledger, books } = this.#parts
    // The first minute that has not ended long enough ago.
    const frontMs = floorTo(CELL_MS, nowMs - this.#lagMs - CLAIM_GRACE_MS) + CELL_MS
    if (this.#frontMs === null) {
      this.#frontMs = frontMs
      this.#backMs = frontMs
    } else if (frontMs > this.#frontMs) {
      await invalidateMissingCommitments(ledger, books, { fromMs: this.#frontMs, toMs: frontMs, nowMs })
      this.#frontMs = frontMs
    }
    this.#floorMs ??= floorTo(CELL_MS, (await ledger.rawRange())?.fromMs ?? this.#frontMs)
    for (let hours = 0; hours < MAX_HOURS_BACK && this.#backMs > this.#floorMs; hours++) {
      const fromMs = Math.max(this.#floorMs, floorTo(HOUR_MS, this.#backMs - 1))
      const hour = { fromMs, toMs: this.#backMs }
      const isClaimed = commitmentsWithin(books, hour).length > 0
      if (isClaimed) await invalidateMissingCommitments(ledger, books, { ...hour, nowMs })
      this.#backMs = fromMs
      if (isClaimed) return
    }
  }
}
