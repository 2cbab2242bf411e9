// The published JSON Schemas of the two topics, generated from the one definition in domain/events/event.ts. They are
// byte for byte the files in the package's schemas/, which tests compare with both.

import type { FastifyInstance } from 'fastify'
import { GpuSampleSchema, TokenUsageSchema } from '../../domain/events/event.ts'
import { jsonResponse, object } from '../open-api.ts'

/** The schemas by file name, in the order of the index. */
const PUBLISHED_SCHEMAS = {
  'gpu.metrics.v1.json': GpuSampleSchema,
  'token.usage.v1.json': TokenUsageSchema,
} as const

/** A schema as it is published: with the dialect that it is written in. */
function publishedSchema(name: keyof typeof PUBLISHED_SCHEMAS): Record<string, unknown> {
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...PUBLISHED_SCHEMAS[name] }
}

export function addSchemaRoutes(app: FastifyInstance): void {
  const names = Object.keys(PUBLISHED_SCHEMAS) as (keyof typeof PUBLISHED_SCHEMAS)[]
  const item = object({ id: { type: 'string' }, title: { type: 'string' }, url: { type: 'string' } })
  const indexSchema = {
    tags: ['events'],
    summary: 'The JSON Schemas of the events',
    response: { 200: jsonResponse(object({ schemas: { type: 'array', items: item } }), 'Index') },
  }
  app.get('/schemas', { schema: indexSchema, config: { scope: 'open' } }, () => ({
    schemas: names.map((name) => {
      const { $id, title, description } = publishedSchema(name)
      return { id: $id, title, description, url: `/schemas/${name}` }
    }),
  }))
  for (const name of names) {
    const schema = {
      tags: ['events'],
      summary: `JSON Schema ${name}`,
      response: {
        200: { description: 'JSON Schema', content: { 'application/schema+json': { schema: { type: 'object' } } } },
      },
    }
    const body = `${JSON.stringify(publishedSchema(name), null, 2)}\n`
    app.get(`/schemas/${name}`, { schema, config: { scope: 'open' } }, (_request, reply) =>
      reply.type('application/schema+json').send(body),
    )
  }
}
