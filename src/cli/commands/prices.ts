// `pertoken prices`: lists versions of the price book and revisions of the past, shows the rules of the effective book,
// sets a new book from a file, and explains the price of one GPU at one instant. Opens the store or asks a running
// server. A new book is effective from the next minute on; what the last day would have cost with it is shown, and
// which rules fit no GPU; `pertoken reprice` corrects the past.

import { CELL_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { defaultsOf } from '../../domain/prices/book-defaults.ts'
import { usd } from '../../domain/prices/money.ts'
import { PriceBook } from '../../domain/prices/price-book.ts'
import { problemText } from '../../domain/prices/price-book-check.ts'
import type { PriceBookDocument } from '../../domain/prices/price-book-schema.ts'
import { fitOfVersion, priceListing } from '../../http/routes/price-routes.ts'
import { PriceBookVersions, setBook } from '../../processor/prices/price-book-versions.ts'
import { explainPrice, type PriceExplanation } from '../../processor/prices/price-explanation.ts'
import { type BookFit, isKnownGpu, unknownGpuText } from '../../processor/prices/seen-gpus.ts'
import { priceChange, WHAT_IF_MS } from '../../processor/recompute/price-change.ts'
import { textTable } from '../../report/table.ts'
import type { EventStore } from '../../store/event-store.ts'
import { ApiClient } from '../api-client.ts'
import { type Command, type CommandContext, numberFlag, textFlag, UsageError } from '../command.ts'
import { instantFlag } from '../parse-instant.ts'
import { hasChange, keptDefaultText, priceChangeText } from '../price-change-text.ts'
import { priceFitText } from '../price-fit-text.ts'
import { ProgressLine } from '../progress-line.ts'
import { readPriceBook } from '../wiring/price-book-file.ts'
import { makeLogger, openStore } from '../wiring/wire.ts'

/** What GET /api/v1/prices and priceListing return. */
interface Listing {
  in_force: { version: number; book: PriceBookDocument } | null
  /** Absent: a server that is older. */
  fit?: BookFit | null
  versions: { version: number; from: string | null; at: string; origin: string; rules: number }[]
  revisions: { revision: number; from: string; to: string; book_version: number; at: string }[]
}

/** What PUT /api/v1/prices returns, as far as it is shown. */
interface SetAnswer {
  version: number
  is_new: boolean
  fit?: BookFit
}

export const prices: Command = {
  usage: 'list | show | set FILE | explain --host NAME --gpu INDEX [--at TIME]',
  flags: {
    host: { value: 'NAME', help: 'For explain: the host; left out: events without a host' },
    gpu: { value: 'INDEX', help: 'For explain: index of the GPU on its host' },
    at: { value: 'TIME', help: 'For explain: the instant (now)' },
    json: { help: 'Prints the result as JSON' },
    url: { value: 'URL', help: 'Asks a running pertoken instead of opening the store' },
  },
  options: ['MONGO_URL', 'DATA_DIR', 'LOG_LEVEL'],
  details:
    'show: the rules in force, those that fit no GPU that was seen, and the GPUs that get the default.\n' +
    'set: FILE is YAML or JSON; a book with any mistake is refused as a whole, each mistake named with its line.\n' +
    'It counts from the next minute on. The past is corrected by pertoken reprice.',
  async run(context) {
    const [action = 'list', file, ...more] = context.words
    const isRight = more.length === 0 && (action === 'set') === (file !== undefined)
    if (!isRight || !['list', 'show', 'set', 'explain'].includes(action)) {
      throw new UsageError(
        'Expected list, show, set FILE or explain --host NAME --gpu INDEX\nSee: pertoken prices --help',
      )
    }
    const url = textFlag(context.flags, 'url')
    if (url !== undefined) return remotely(context, new ApiClient(url, context.config.API_TOKEN), { action, file })
    const store = await openStore(context.config, makeLogger(context.config))
    try {
      await store.prepare()
      return await locally(context, store, { action, file })
    } finally {
      await store.close()
    }
  },
}

interface PricesRequest {
  action: string
  file: string | undefined
}

async function locally(context: CommandContext, store: EventStore, { action, file }: PricesRequest): Promise<number> {
  if (action === 'set') return setLocally(context, store, file!)
  if (action === 'explain') {
    const slot = slotOf(context)
    const books = await readVersions(store)
    if (books.versions.length === 0) {
      throw new Error('Cannot explain a price: there is no price book yet; start the processor, or set one')
    }
    if (!(await isKnownGpu(store, books.bookFor(floorTo(CELL_MS, slot.atMs)), slot))) {
      throw new Error(`Cannot explain a price: ${unknownGpuText(slot)}`)
    }
    return showExplanation(context, await explainPrice(store, slot))
  }
  const listing = (await priceListing(store, await readVersions(store), Date.now())) as Listing
  return action === 'show' ? showBook(context, listing) : showListing(context, listing)
}

async function readVersions(store: EventStore): Promise<PriceBookVersions> {
  const books = new PriceBookVersions(store.ledger)
  await books.refresh()
  return books
}

async function remotely(context: CommandContext, client: ApiClient, { action, file }: PricesRequest): Promise<number> {
  if (action === 'set') {
    const book = bookOf(context, file!)
    if (book === null) return 1
    return showVersion(context, (await (await client.put('/api/v1/prices', book)).json()) as SetAnswer)
  }
  if (action === 'explain') {
    const { host, gpuIndex, atMs } = slotOf(context)
    const parameters = { host: host ?? undefined, gpu_index: gpuIndex, at: new Date(atMs).toISOString() }
    const response = await client.get('/api/v1/explain', parameters)
    return showExplanation(context, (await response.json()) as PriceExplanation)
  }
  const listing = (await (await client.get('/api/v1/prices', {})).json()) as Listing
  return action === 'show' ? showBook(context, listing) : showListing(context, listing)
}

/** The book of a file; null when it is wrong, after all that is wrong has been reported. */
function bookOf({ say }: CommandContext, file: string): PriceBookDocument | null {
  const { book, problems, warnings } = readPriceBook(file)
  for (const warning of warnings) say(`${file}: ${problemText(warning)} (allowed)\n`)
  if (book !== null) return book
  for (const problem of problems) say(`${file}: ${problemText(problem)}\n`)
  say(`The price book has ${problems.length} problem${problems.length === 1 ? '' : 's'}: the old one stays in force\n`)
  return null
}

async function setLocally(context: CommandContext, store: EventStore, file: string): Promise<number> {
  const book = bookOf(context, file)
  if (book === null) return 1
  const nowMs = Date.now()
  const { version, isNew } = await setBook(store.ledger, book, { origin: 'cli', nowMs })
  showVersion(context, { version: version.version, is_new: isNew, fit: await fitOfVersion(store, version, nowMs) })
  if (!isNew || context.flags['json'] === true) return 0
  const toMs = floorTo(CELL_MS, nowMs)
  const line = new ProgressLine('Looking at the last day')
  const onProgress = (progress: Parameters<ProgressLine['show']>[0]) => line.show(progress)
  const range = { fromMs: toMs - WHAT_IF_MS, toMs, bookVersion: version.version }
  const change = await priceChange({ ledger: store.ledger, ...range, onProgress })
  line.clear()
  if (hasChange(change)) {
    context.print(
      `\nThe last day stays as it is. Repriced to this version it would cost:\n\n${priceChangeText(change)}`,
    )
    context.print(`\nTo correct it: pertoken reprice --from TIME --to TIME --version ${version.version}\n`)
  } else if (change.cells > 0) {
    context.print('\nThe last day costs the same with this version: repricing it would change nothing\n')
  }
  // Only a default that this book has changed: what is older was decided before.
  const kept = version.book as PriceBookDocument
  if (defaultsOf(kept).at(-1)!.from_ms === version.fromMs) context.print(keptDefaultText(kept, range.fromMs))
  return 0
}

function slotOf({ flags }: CommandContext): Parameters<typeof explainPrice>[1] {
  if (flags['gpu'] === undefined)
    throw new UsageError('Explain needs --gpu INDEX, and --host NAME where events have one')
  const gpuIndex = numberFlag(flags, 'gpu', { min: 0, max: 1023, default: 0, integer: true })
  const nowMs = Date.now()
  return { host: textFlag(flags, 'host') ?? null, gpuIndex, atMs: instantFlag(flags, 'at', nowMs) ?? nowMs, nowMs }
}

function showVersion({ flags, print }: CommandContext, answer: SetAnswer): number {
  const { version, is_new: isNew, fit } = answer
  if (flags['json'] === true) {
    print(`${JSON.stringify(answer)}\n`)
    return 0
  }
  if (isNew) print(`Price book version ${version} is set: it counts from the next minute on\n`)
  else print(`Price book version ${version} says the same already: nothing has changed\n`)
  if (fit !== undefined) print(priceFitText(fit))
  return 0
}

/** The rules of the effective book, and how they fit. */
function showBook({ flags, print }: CommandContext, { in_force: effective, fit }: Listing): number {
  if (flags['json'] === true) print(`${JSON.stringify({ in_force: effective, fit: fit ?? null }, null, 2)}\n`)
  else if (effective === null) print(NO_BOOK)
  else {
    const compiled = new PriceBook(effective.book, effective.version)
    const rules = effective.book.rules.map(({ id, kind, match, from = '-', to = '-' }, i) => {
      const fields = Object.entries(match).map(([name, value]) => `${name} ${value}`)
      return [id, kind, fields.join(', '), String(usd(compiled.rules[i]!.nanoUsdPerHour)), from, to]
    })
    print(`Price book version ${effective.version}${rules.length === 0 ? ': no rules' : ''}\n\n`)
    if (rules.length > 0) print(textTable(['rule', 'kind', 'matches', 'USD/h', 'from', 'to'], rules, SHOWN))
    if (fit !== undefined && fit !== null) print(`${rules.length > 0 ? '\n' : ''}${priceFitText(fit)}`)
  }
  return 0
}

/** Right-aligned columns of a book; an owned GPU's price is without energy. */
const SHOWN = [false, false, false, true, false, false]
const NO_BOOK = 'There is no price book yet: start the processor, or pertoken prices set FILE\n'

function showListing({ flags, print }: CommandContext, listing: Listing): number {
  if (flags['json'] === true) {
    print(`${JSON.stringify(listing, null, 2)}\n`)
    return 0
  }
  const effective = listing.in_force?.version
  const versions = listing.versions.map(({ version, from, at, origin, rules }) => [
    ...[`${version}${version === effective ? ' (in force)' : ''}`, from ?? 'since ever', origin, String(rules), at],
  ])
  if (versions.length === 0) print(NO_BOOK)
  else print(textTable(['version', 'from', 'origin', 'rules', 'set at'], versions, [false, false, false, true, false]))
  const revisions = listing.revisions.map(({ revision, from, to, book_version, at }) => [
    ...[String(revision), from, to, String(book_version), at],
  ])
  if (revisions.length > 0) {
    print(
      `\n${textTable(['revision', 'from', 'to', 'version', 'made at'], revisions, [true, false, false, true, false])}`,
    )
  }
  return 0
}

function showExplanation({ flags, print }: CommandContext, found: PriceExplanation): number {
  if (flags['json'] === true) {
    print(`${JSON.stringify(found, null, 2)}\n`)
    return 0
  }
  const { host, gpu_index, at, gpu_uuid, gpu_name, price_per_hour_usd, price_kind, rule, because, others, parts } =
    found
  const gpu = [gpu_name, gpu_uuid].filter((part) => part !== null).join(', ')
  print(`${host ?? '(no host)'}/${gpu_index}${gpu === '' ? '' : ` (${gpu})`} at ${at}, version ${found.book_version}\n`)
  print(`${price_per_hour_usd} USD/h, ${price_kind}${rule === null ? '' : `, rule "${rule.id}"`}: ${because}\n`)
  if (found.note !== undefined) print(`${found.note[0]!.toUpperCase()}${found.note.slice(1)}\n`)
  const components = Object.entries(parts).map(([name, value]) => `${name} ${value ?? 'unknown'}`)
  print(`Made of: ${components.join(', ')}\n`)
  const otherRules = others.map(({ id, reason }) => [id, reason])
  if (otherRules.length > 0) print(`\n${textTable(['other rule', 'why not'], otherRules, [])}`)
  return 0
}
