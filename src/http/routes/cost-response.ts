// The answer of GET /api/v1/cost, described for OpenAPI.

import { FIGURE_NAMES } from '../../report/cost-figures.ts'
import { GROUPINGS, IDLE_WAYS, STEPS } from '../../report/cost-query.ts'
import { nullable, object, problemResponse } from '../open-api.ts'

const TEXTS: Record<string, object> = {
  start: { type: 'string', format: 'date-time' },
  end: { type: 'string', format: 'date-time' },
  model: nullable('string', 'Null: unknown, none, or not grouped by'),
  tenant: nullable('string', 'Null: unknown, none, or not grouped by'),
  host: nullable('string', 'Null: unknown, or not grouped by'),
  gpu_uuid: nullable('string', 'UUID as a sample near by told it'),
  price_kind: nullable('string', 'on-demand, spot, reserved, owned, sample or default'),
  gpu_index: nullable('integer', 'Index on its host'),
  basis: { enum: ['measured', 'presence', 'assumed', 'mixed', 'none'] },
  method: { enum: ['weighted-tokens', 'requests', 'events', 'model-loaded', 'memory', 'mixed', 'none'] },
  measured_token_share: nullable('number', 'Part of the tokens that fell on time with measured utilisation'),
  reason: nullable('string', 'Why the cost of a million tokens is null'),
  too_few_tokens: { type: 'boolean', description: 'Its costs of a million tokens are over fewer than 1,000 tokens' },
}

const RowSchema = object(
  Object.fromEntries(
    FIGURE_NAMES.map((name) => {
      const isQuotient = name.startsWith('usd_per_')
      return [name, TEXTS[name] ?? (isQuotient ? nullable('number', 'USD; null without tokens') : { type: 'number' })]
    }),
  ),
)

export const costResponse = {
  200: {
    description: 'The rows, with the totals of the whole range',
    headers: {
      'X-Pertoken-Final': { type: 'boolean', description: 'csv, focus: final, as known before the first row' },
      'X-Pertoken-Watermark': { type: 'string', format: 'date-time', description: 'csv, focus: watermark, if known' },
    },
    content: {
      'application/json': {
        schema: object({
          from: { type: 'string', format: 'date-time' },
          to: { type: 'string', format: 'date-time' },
          step: { enum: STEPS },
          by: { type: 'array', items: { enum: GROUPINGS } },
          idle: { enum: IDLE_WAYS },
          revision: nullable('integer', 'The revision that was asked for'),
          final: { type: 'boolean' },
          watermark: nullable('string', 'Record time up to which the log has been read; null where unknown'),
          rows: { type: 'array', items: RowSchema },
          totals: RowSchema,
          cursor: nullable('string', 'Continues the rows as ?cursor=; null at their end'),
        }),
      },
      'text/csv': { schema: { type: 'string' } },
    },
  },
  default: problemResponse,
}
