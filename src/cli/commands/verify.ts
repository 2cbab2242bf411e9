// `pertoken verify`: recomputes the ledger from the single raw documents and compares. Exit 1 on any difference, and
// the first of them are shown; `--repair` marks what differs, so that the keeper of a running processor recomputes it.

import { CELL_MS, DAY_MS, floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { PriceBookVersions } from '../../processor/prices/price-book-versions.ts'
import { type VerifyResult, verify as verifyRange } from '../../processor/recompute/verify.ts'
import { textTable } from '../../report/table.ts'
import type { LedgerStore } from '../../store/ledger-store.ts'
import { type Command, type CommandContext, UsageError } from '../command.ts'
import { instantFlag } from '../parse-instant.ts'
import { ProgressLine } from '../progress-line.ts'
import { makeLogger, openStore } from '../wiring/wire.ts'

export const verify: Command = {
  usage: '[--from TIME] [--to TIME] [--repair] [--json]',
  flags: {
    from: { value: 'TIME', help: 'First instant (the day of the first raw event or commitment)' },
    to: { value: 'TIME', help: 'First instant after the range (the day of the last raw event)' },
    repair: { help: 'Marks what differs, so that the keeper computes it anew' },
    json: { help: 'Prints the result as JSON' },
  },
  options: ['MONGO_URL', 'DATA_DIR', 'LOG_LEVEL'],
  details: 'The range is widened to whole minutes. Days whose raw events are frozen or purged are named and skipped.',
  async run(context) {
    const { config, flags, words, print, signal } = context
    if (words.length > 0) throw new UsageError(`Unknown words "${words.join(' ')}": expected only flags`)
    const store = await openStore(config, makeLogger(config))
    const line = new ProgressLine('Verifying')
    try {
      await store.prepare()
      const range = await rangeOf(context, store.ledger)
      if (range === null) {
        print(flags['json'] === true ? '{"events":0,"differenceCount":0}\n' : 'There are no raw events to verify\n')
        return 0
      }
      const result = await verifyRange({
        ...{ ledger: store.ledger, ...range, nowMs: Date.now(), signal },
        repair: flags['repair'] === true,
        onProgress: (progress) => line.show(progress),
      })
      line.clear()
      print(flags['json'] === true ? `${JSON.stringify(result)}\n` : textOf(result))
      return result.differenceCount === 0 ? 0 : 1
    } finally {
      line.clear()
      await store.close()
    }
  },
}

/**
 * The requested range in whole minutes; by default whole days, all that raw events lie in or affect, because hours and
 * days are compared only where the range contains them entirely. Null when there are no raw events.
 */
async function rangeOf(
  { flags }: CommandContext,
  ledger: LedgerStore,
): Promise<{ fromMs: number; toMs: number } | null> {
  const nowMs = Date.now()
  const [from, to] = [instantFlag(flags, 'from', nowMs), instantFlag(flags, 'to', nowMs)]
  const raw = from === undefined || to === undefined ? await coveredRange(ledger, nowMs) : null
  if (raw === null && (from === undefined || to === undefined)) return null
  // A sample covers time up to two minutes from its own, a token event is counted up to an hour before it.
  const fromMs = from === undefined ? floorTo(DAY_MS, raw!.fromMs - HOUR_MS) : floorTo(CELL_MS, from)
  const toMs = to === undefined ? floorTo(DAY_MS, raw!.toMs + 2 * CELL_MS) + DAY_MS : Math.ceil(to / CELL_MS) * CELL_MS
  if (fromMs >= toMs) throw new UsageError('Flag --to is not after --from: expected a later instant')
  return { fromMs, toMs }
}

/** What raw events and commitments reach; null when there are neither. */
async function coveredRange(ledger: LedgerStore, nowMs: number): Promise<{ fromMs: number; toMs: number } | null> {
  const raw = await ledger.rawRange()
  const books = new PriceBookVersions(ledger)
  await books.refresh()
  if (books.committedFromMs >= nowMs) return raw
  return { fromMs: Math.min(raw?.fromMs ?? nowMs, books.committedFromMs), toMs: Math.max(raw?.toMs ?? nowMs, nowMs) }
}

function textOf(result: VerifyResult): string {
  const { from, to, events, cellsCompared, hoursCompared, daysCompared, differences, differenceCount } = result
  const compared = `${events} events, ${cellsCompared} cells, ${hoursCompared} hours, ${daysCompared} days`
  const lines = [`${from} to ${to}: ${compared} compared`]
  if (result.pending > 0) {
    lines.push(
      `${result.pending} spans are pending, not compared: the keeper of a running processor has yet to come to them`,
    )
  }
  if (result.skippedDays.length > 0) lines.push(`Frozen days, skipped: ${result.skippedDays.join(', ')}`)
  if (differenceCount === 0) {
    const verdict = result.pending > 0 ? 'No difference in what was compared' : 'No difference'
    return `${[...lines, verdict].join('\n')}\n`
  }
  const rows = differences.map((row) => [row.level, row.start, row.host ?? '-', row.what, row.expected, row.found])
  const repaired =
    result.repaired > 0 ? `\n${result.repaired} spans are marked: a running processor recomputes them` : ''
  const head = `${lines.join('\n')}\n${differenceCount} differences, the first ${differences.length}:\n\n`
  return `${head}${textTable(['level', 'start', 'host', 'what', 'expected', 'found'], rows, [])}${repaired}\n`
}
