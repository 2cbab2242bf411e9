// OpenAPI 3.1, generated from the schemas that the routes declare, and its page. The schemas only describe; they
// neither coerce nor strip: bodies are checked by the log's own decoder, queries by query.ts, and responses are written
// as they are, so that fields unknown to the schemas are kept (see server.ts, where Fastify's compilers are replaced).

import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import { GpuSampleSchema, TokenUsageSchema } from '../domain/events/event.ts'
import { PROBLEM_TYPE } from './problem.ts'

const DESCRIPTION = `What a token costs on GPUs that you rent or own. Times are UTC in ISO 8601, money is in USD, errors
are RFC 9457 problem details. Query parameters that are unknown, wrong or given twice are refused with all that is wrong.
Where API tokens are configured, requests bring one of scope read (reading), ingest (posting events) or admin (everything);
else reading is open, and writing is for programs on the server's own machine.`

/** Path of the API's page. */
export const DOCS_PATH = '/docs'

const ProblemSchema = {
  $id: 'Problem',
  type: 'object',
  description: 'RFC 9457 problem details',
  required: ['type', 'title', 'status', 'detail'],
  properties: {
    type: { type: 'string', description: 'Stable name of the kind of problem: urn:pertoken:problem:…' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string', description: 'What failed and what to do' },
    errors: {
      type: 'array',
      description: 'Every single thing that is wrong; at most 100',
      items: {
        type: 'object',
        required: ['path', 'reason', 'message'],
        properties: {
          path: { type: 'string', description: 'JSON pointer into the body, or name of the query parameter' },
          reason: { type: 'string', description: 'Stable reason code' },
          message: { type: 'string' },
        },
      },
    },
    errors_omitted: { type: 'integer', description: 'How many errors more there are' },
  },
}

/** What swagger-ui needs: some styles are inline, its logo is a data URL; nothing is loaded from elsewhere. */
const DOCS_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
  "connect-src 'self'; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** Registers the generator; before all routes, because it sees routes as they are added. */
export async function addOpenApi(
  app: FastifyInstance,
  { version, basePath = '' }: { version: string; basePath?: string },
): Promise<void> {
  app.addSchema(ProblemSchema)
  app.addSchema(GpuSampleSchema)
  app.addSchema(TokenUsageSchema)
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'pertoken',
        version,
        description: DESCRIPTION,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: basePath || '/' }],
      components: {
        securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'API token: pt_…' } },
      },
      security: [{ token: [] }, {}],
      tags: [
        { name: 'live', description: 'What is going on now' },
        { name: 'cost', description: 'What tokens cost, and the prices behind it' },
        { name: 'events', description: 'Events and what became of them' },
        { name: 'operations', description: 'For orchestrators, monitoring and people on call' },
      ],
    },
    // Schemas with an id are named by it in components.schemas, so that references stay readable.
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => String(json['$id'] ?? `def-${i}`) },
  })
  const theme = { title: 'pertoken: API' }
  await app.register(swaggerUi, { routePrefix: DOCS_PATH, indexPrefix: basePath, staticCSP: DOCS_CSP, theme })
  const schema = {
    tags: ['operations'],
    summary: 'This description, as OpenAPI 3.1',
    response: { 200: jsonResponse({ type: 'object' }, 'The OpenAPI document') },
  }
  app.get('/openapi.json', { schema, config: { scope: 'open' } }, () => app.swagger())
}

/** A JSON response, for a route's `response`. */
export function jsonResponse(schema: object, description: string): object {
  return { description, content: { 'application/json': { schema } } }
}

/** The response for every error; the `default` of every API route. */
export const problemResponse = {
  description: 'What went wrong',
  content: { [PROBLEM_TYPE]: { schema: { $ref: 'Problem#' } } },
}

export const nullable = (type: string, description: string) => ({ type: [type, 'null'], description })

/** An object schema whose listed fields are always present; others are allowed. */
export function object(properties: Record<string, object>, description?: string): object {
  const named = { type: 'object', properties, required: Object.keys(properties) }
  return description === undefined ? named : { ...named, description }
}

export function page(items: object): object {
  return object({
    items: { type: 'array', items },
    cursor: nullable('string', 'Continues the listing as ?cursor=; null at its end'),
  })
}
