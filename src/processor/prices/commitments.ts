// Which commitment a reserved GPU's cost belongs to, for exports that want its id: the one rule of kind `reserved` that
// priced the GPU in a span of time. A row of cost knows the GPU and that its price was reserved; where several rules
// may have given it (one followed another, or a rule names GPUs by pattern), it has no single commitment.

import type { PriceBook } from '../../domain/prices/price-book.ts'
import type { PriceRule } from '../../domain/prices/price-rule.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { PriceBookVersions } from './price-book-versions.ts'

/** What a row of cost knows of its GPU, and its time, epoch milliseconds. */
interface ReservedRow {
  startMs: number
  endMs: number
  key: { host: string | null; gpu_index: number | null; gpu_uuid: string | null }
}

/** Time with one price book. */
interface BookSpan {
  fromMs: number
  toMs: number
  book: PriceBook
}

export class Commitments {
  readonly #books: PriceBookVersions
  readonly #upToRevision: number
  /** Spans of the last asked time: rows come in order of time. */
  #spansOf = { startMs: Number.NaN, endMs: Number.NaN, spans: [] as BookSpan[] }

  private constructor(books: PriceBookVersions, upToRevision: number) {
    this.#books = books
    this.#upToRevision = upToRevision
  }

  /** Of the ledger as it is, or as of a revision. Rejects with a StoreError. */
  static async of(ledger: LedgerStore, revision: number | null): Promise<Commitments> {
    const books = new PriceBookVersions(ledger)
    await books.refresh()
    return new Commitments(books, revision ?? Number.POSITIVE_INFINITY)
  }

  /** The id of the rule that priced a reserved row; null where it is not a single one, or the row names no GPU. */
  idOf({ startMs, endMs, key }: ReservedRow): string | null {
    const { host, gpu_index: gpuIndex, gpu_uuid: uuid } = key
    if (gpuIndex === null) return null
    const ids = new Set<string>()
    for (const { fromMs, toMs, book } of this.#spans(startMs, endMs)) {
      const slot = { uuid, host: book.hosts.nameOf(host), gpuIndex, name: null }
      for (const segment of book.segments(slot, fromMs, toMs)) {
        if (segment.rule?.kind === 'reserved') ids.add(segment.rule.id)
        // The row does not have the GPU's name, so a pattern may have fitted.
        else if (segment.rule === null && book.rules.some((rule) => isPattern(rule, segment))) return null
      }
    }
    return ids.size === 1 ? [...ids][0]! : null
  }

  #spans(startMs: number, endMs: number): BookSpan[] {
    if (this.#spansOf.startMs === startMs && this.#spansOf.endMs === endMs) return this.#spansOf.spans
    const { versions, revisions } = this.#books
    const bounds = [
      ...versions.map(({ fromMs }) => fromMs ?? startMs),
      ...revisions.flatMap((one) => [one.fromMs, one.toMs]),
    ]
    const cuts = [...new Set([startMs, ...bounds.filter((atMs) => startMs < atMs && atMs < endMs)])].sort(
      (a, b) => a - b,
    )
    const spans = cuts.map((fromMs, i) => ({
      fromMs,
      toMs: cuts[i + 1] ?? endMs,
      book: this.#books.bookFor(fromMs, this.#upToRevision),
    }))
    this.#spansOf = { startMs, endMs, spans }
    return spans
  }
}

function isPattern({ kind, pattern, fromMs, toMs }: PriceRule, span: { fromMs: number; toMs: number }): boolean {
  return kind === 'reserved' && pattern !== null && fromMs < span.toMs && toMs > span.fromMs
}
