// The price book: its versions and revisions, a new version, and the explanation of a GPU's price. A book is accepted
// or refused as a whole, with every issue listed; it is effective from the next minute on, and the past keeps its price
// until it is repriced. Authorization to set prices is checked before a byte of the body is read, as for posted events.

import type { FastifyInstance, FastifyRequest } from 'fastify'
import { CELL_MS, floorTo } from '../../domain/ledger/buckets.ts'
import { PriceBook } from '../../domain/prices/price-book.ts'
import { type PriceBookDocument, PriceBookSchema } from '../../domain/prices/price-book-schema.ts'
import type { Problem } from '../../domain/prices/schema-errors.ts'
import { EXPLAINED_TIMES } from '../../processor/prices/explained-instant.ts'
import { InvalidPriceBook, PriceBookVersions, setBook } from '../../processor/prices/price-book-versions.ts'
import { explainPrice } from '../../processor/prices/price-explanation.ts'
import { isKnownGpu, readBookFit, unknownGpuText } from '../../processor/prices/seen-gpus.ts'
import type { EventStore } from '../../store/event-store.ts'
import type { PriceBookVersion, Revision } from '../../store/ledger-store.ts'
import type { HttpDependencies } from '../dependencies.ts'
import { jsonResponse, nullable, object, problemResponse } from '../open-api.ts'
import { gpuIndexParameter, hostParameter } from '../parameters.ts'
import { HttpProblem, unsupportedMediaType } from '../problem.ts'
import { instant, NO_QUERY, optional, Query, required } from '../query.ts'

/** Largest price book, bytes: ample for ten thousand rules. */
const MAX_BOOK_BYTES = 8 * 1024 * 1024

const versionFields = {
  version: { type: 'integer' },
  from: nullable('string', 'First minute that it counts; null: since ever'),
  at: { type: 'string', format: 'date-time', description: 'When it was set' },
  origin: { type: 'string', description: 'environment, file, api or cli' },
  rules: { type: 'integer', description: 'Number of rules' },
}
const fitField = nullable(
  'object',
  'How the book fits the GPUs that were seen: unmatched_rules fit none, each with state (never_seen, not_reported, ' +
    'future, past), nearest and message; default_gpus get the default since no rule fits them',
)
const revisionFields = {
  revision: { type: 'integer' },
  from: { type: 'string', format: 'date-time' },
  to: { type: 'string', format: 'date-time' },
  book_version: { type: 'integer' },
  at: { type: 'string', format: 'date-time' },
  summary: { description: 'Before and after, by model and tenant' },
}

export function addPriceRoutes(app: FastifyInstance, dependencies: HttpDependencies): void {
  addListing(app, dependencies)
  addSetting(app, dependencies)
  addExplaining(app, dependencies)
}

function addListing(app: FastifyInstance, { store, now }: HttpDependencies): void {
  const schema = {
    tags: ['cost'],
    summary: 'The price book in force, its versions, and the revisions of the past',
    querystring: NO_QUERY.schema,
    response: {
      200: jsonResponse(
        object({
          in_force: nullable('object', 'Version and book that price this minute; null while there is none'),
          fit: fitField,
          versions: { type: 'array', items: object(versionFields) },
          revisions: { type: 'array', items: object(revisionFields) },
        }),
        'Versions and revisions in order',
      ),
      default: problemResponse,
    },
  }
  app.get('/api/v1/prices', { schema, config: { scope: 'read' } }, async (request) => {
    NO_QUERY.parse(request.query)
    const books = new PriceBookVersions(store.ledger)
    await books.refresh()
    return priceListing(store, books, now())
  })
}

/** The listing of all price books, for the API and the command line. Rejects with a StoreError. */
export async function priceListing(store: EventStore, books: PriceBookVersions, nowMs: number): Promise<object> {
  const effective = books.versions.length === 0 ? null : books.bookFor(floorTo(CELL_MS, nowMs))
  return {
    in_force: effective === null ? null : { version: effective.version, book: effective.data },
    fit: effective === null ? null : await readBookFit(store, effective, nowMs),
    versions: books.versions.map(versionView),
    revisions: books.revisions.map(revisionView),
  }
}

/** How a version fits the GPUs that were seen, from when it counts on. Rejects with a StoreError. */
export function fitOfVersion(store: EventStore, { book, version, fromMs }: PriceBookVersion, nowMs: number) {
  return readBookFit(store, new PriceBook(book as PriceBookDocument, version), Math.max(nowMs, fromMs ?? nowMs))
}

function addSetting(app: FastifyInstance, { store, now }: HttpDependencies): void {
  const schema = {
    tags: ['cost'],
    summary: 'Sets the price book: a new version from the next minute on',
    description:
      'Taken or refused as a whole, with every problem listed. As application/json, with a token of scope admin, or from ' +
      'this machine where there are no tokens. ' +
      'Setting the same book again makes no version.',
    querystring: NO_QUERY.schema,
    body: { content: { 'application/json': { schema: PriceBookSchema } } },
    response: {
      200: jsonResponse(
        object({ ...versionFields, is_new: { const: false }, fit: fitField }),
        'The newest version says the same already',
      ),
      201: jsonResponse(object({ ...versionFields, is_new: { const: true }, fit: fitField }), 'The new version'),
      default: problemResponse,
    },
  }
  app.route<{ Body: Buffer | undefined }>({
    method: ['PUT', 'POST'],
    url: '/api/v1/prices',
    schema,
    config: { scope: 'admin' },
    bodyLimit: MAX_BOOK_BYTES,
    onRequest: async (request) => requireJson(request),
    handler: async (request, reply) => {
      NO_QUERY.parse(request.query)
      const book = parseBody(request.body)
      try {
        const { version, isNew, warnings } = await setBook(store.ledger, book, { origin: 'api', nowMs: now() })
        const fit = await fitOfVersion(store, version, now())
        reply.code(isNew ? 201 : 200)
        return { ...versionView(version), is_new: isNew, warnings: warnings.map(issueOf), fit }
      } catch (error) {
        if (!(error instanceof InvalidPriceBook)) throw error
        const count = error.problems.length === 1 ? 'one problem' : `${error.problems.length} problems`
        const detail = `The price book has ${count}, the old one stays in force: correct what errors lists`
        throw new HttpProblem(400, 'bad-price-book', { detail, errors: error.problems.map(issueOf) })
      }
    },
  })
}

function addExplaining(app: FastifyInstance, { store, now }: HttpDependencies): void {
  const query = new Query({
    host: optional(hostParameter),
    gpu_index: required(gpuIndexParameter),
    at: optional(instant('The instant; now when absent')),
  })
  const schema = {
    tags: ['cost'],
    summary: 'Why a GPU costs what it costs: the rule that won, why the others did not, the parts of the price',
    querystring: query.schema,
    response: {
      200: jsonResponse(
        object({
          host: nullable('string', 'Host; null where events name none'),
          gpu_index: { type: 'integer' },
          at: { type: 'string', format: 'date-time' },
          gpu_uuid: nullable('string', 'UUID that the ledger takes; null where unknown'),
          gpu_name: nullable('string', 'Name that the ledger takes; null where unknown'),
          time: { enum: EXPLAINED_TIMES, description: 'What the ledger makes of the instant' },
          note: { type: 'string', description: 'The same in a sentence' },
          sample: nullable(
            'object',
            'The sample that gives uuid, name, price and power; null where no single one does',
          ),
          book_version: { type: 'integer' },
          price_per_hour_usd: { type: 'number' },
          price_kind: { type: 'string' },
          parts: { type: 'object', description: 'What the price is made of' },
          rule: nullable('object', 'The rule that won; null where sample or default tell the price'),
          because: { type: 'string' },
          others: { type: 'array', items: object({ id: { type: 'string' }, reason: { type: 'string' } }) },
        }),
        'The price and its reasons',
      ),
      default: problemResponse,
    },
  }
  app.get('/api/v1/explain', { schema, config: { scope: 'read' } }, async (request) => {
    const { host = null, gpu_index: gpuIndex, at: atMs = now() } = query.parse(request.query)
    const books = new PriceBookVersions(store.ledger)
    await books.refresh()
    if (books.versions.length === 0) {
      throw new HttpProblem(404, 'not-found', { detail: 'There is no price book yet: start the processor, or set one' })
    }
    const asked = { host, gpuIndex, atMs, nowMs: now() }
    if (!(await isKnownGpu(store, books.bookFor(floorTo(CELL_MS, atMs)), asked))) {
      throw new HttpProblem(404, 'not-found', { detail: unknownGpuText(asked) })
    }
    return explainPrice(store, asked)
  })
}

function requireJson({ headers }: Pick<FastifyRequest, 'headers'>): void {
  const type = (headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase()
  if (type === 'application/json') return
  const given = type === '' ? 'missing' : JSON.stringify(type.slice(0, 80))
  throw unsupportedMediaType(`Content type is ${given}: expected application/json`)
}

function parseBody(body: Buffer | undefined): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body ?? Buffer.alloc(0)))
  } catch (error) {
    const detail = `The body is not JSON: ${(error as Error).message}; expected a price book`
    throw new HttpProblem(400, 'bad-price-book', { detail })
  }
}

function issueOf({ path, value, expected }: Problem): { path: string; reason: string; message: string } {
  return { path, reason: 'wrong_value', message: `Is ${value}: expected ${expected}` }
}

function versionView({ version, fromMs, atMs, origin, book }: PriceBookVersion): object {
  const { rules } = book as { rules: unknown[] }
  return { version, from: iso(fromMs), at: iso(atMs), origin, rules: rules.length }
}

function revisionView({ revision, fromMs, toMs, bookVersion, atMs, summary }: Revision): object {
  return { revision, from: iso(fromMs), to: iso(toMs), book_version: bookVersion, at: iso(atMs), summary }
}

function iso(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}
