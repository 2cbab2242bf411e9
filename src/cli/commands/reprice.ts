// `pertoken reprice`: pins a range of the past to a version of the price book after a correction, and shows before and
// after. The change is recorded as a revision, which can be listed (`prices list`) and left out of a report (`report
// --revision N`); raw events do not change. The keeper of a running processor recomputes the cells within minutes.

import { CELL_MS, floorTo } from '../../domain/ledger/buckets.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import { reprice as repriceRange } from '../../processor/recompute/reprice.ts'
import { type Command, numberFlag, UsageError } from '../command.ts'
import { instantFlag } from '../parse-instant.ts'
import { hasChange, keptDefaultText, priceChangeText } from '../price-change-text.ts'
import { ProgressLine } from '../progress-line.ts'
import { makeLogger, openStore } from '../wiring/wire.ts'

export const reprice: Command = {
  usage: '--from TIME --to TIME [--version N] [--json]',
  flags: {
    from: { value: 'TIME', help: 'First instant: a date, ISO 8601, or so long ago: 24h, 7d' },
    to: { value: 'TIME', help: 'First instant after the range' },
    version: { value: 'N', help: 'Version of the price book (the newest)' },
    json: { help: 'Prints the revision as JSON' },
  },
  options: ['MONGO_URL', 'DATA_DIR', 'LOG_LEVEL'],
  details: 'The range is widened to whole minutes. Frozen days are named and skipped.',
  async run({ config, flags, words, print, say }) {
    const nowMs = Date.now()
    const [from, to] = [instantFlag(flags, 'from', nowMs), instantFlag(flags, 'to', nowMs)]
    if (words.length > 0 || from === undefined || to === undefined) {
      throw new UsageError('Expected --from TIME and --to TIME\nSee: pertoken reprice --help')
    }
    const [fromMs, toMs] = [floorTo(CELL_MS, from), Math.ceil(to / CELL_MS) * CELL_MS]
    if (fromMs >= toMs) throw new UsageError('Flag --to is not after --from: expected a later instant')
    const asked = numberFlag(flags, 'version', { min: 1, max: 1e9, default: 0, integer: true })
    const store = await openStore(config, makeLogger(config))
    const line = new ProgressLine('Repricing')
    try {
      await store.prepare()
      const books = await store.ledger.readBooks()
      const versions = books.map(({ version }) => version)
      const bookVersion = asked === 0 ? Math.max(0, ...versions) : asked
      if (!versions.includes(bookVersion)) {
        const known =
          versions.length === 0 ? 'there is none yet' : `there are ${Math.min(...versions)} to ${Math.max(...versions)}`
        throw new UsageError(`Flag --version is ${bookVersion}: of price books ${known}`)
      }
      const onProgress = (progress: Parameters<ProgressLine['show']>[0]) => line.show(progress)
      const made = await repriceRange({ ledger: store.ledger, fromMs, toMs, bookVersion, nowMs, onProgress })
      line.clear()
      if (flags['json'] === true) {
        print(`${JSON.stringify(made)}\n`)
        return 0
      }
      print(`${made.summary.from} to ${made.summary.to}, price book version ${bookVersion}:\n\n`)
      print(priceChangeText(made.summary))
      const book = books.find(({ version }) => version === bookVersion)!.book as PriceBookDocument
      if (!hasChange(made.summary)) print(keptDefaultText(book, fromMs))
      say(`Revision ${made.revision} is recorded: a running processor recomputes its cells within minutes\n`)
      return 0
    } finally {
      line.clear()
      await store.close()
    }
  },
}
