// State of the process. /health is for operators and container health checks: 503 as soon as anything is wrong. /livez
// concerns the process alone, never its dependencies: restarting it would not bring a broker back. /readyz is for load
// balancers: not ready before partitions are assigned and while draining; a dependency that fails later leaves it
// ready, because otherwise an outage of the log would take the page that reports it off the network, on all replicas at
// once.

import type { FastifyInstance } from 'fastify'
import type { Health } from '../../processor/ingest/health.ts'
import { type HttpDependencies, withFileFaults } from '../dependencies.ts'
import { jsonResponse, nullable, object } from '../open-api.ts'

const count = { type: 'integer', minimum: 0 }

const HealthSchema = object({
  status: { enum: ['ok', 'starting', 'draining', 'stopped', 'error'] },
  problems: {
    type: 'array',
    items: object({ code: { type: 'string' }, message: { type: 'string' } }, 'What is wrong, with `since` where known'),
  },
  notes: {
    type: 'array',
    items: object({ code: { type: 'string' }, message: { type: 'string' } }, 'What costs money, and what to do'),
  },
  lag: nullable('integer', 'Records that are not read yet'),
  last_event: nullable('string', 'Event time of the newest event'),
  outcomes: object({
    read: count,
    stored: count,
    duplicate: count,
    late: count,
    rejected: count,
    rejected_by_reason: { type: 'object', additionalProperties: count },
  }),
  open_steps: count,
  slots: count,
  log: { type: 'string' },
  store: { type: 'string' },
  version: { type: 'string' },
  uptime_s: count,
})

export function addHealthRoutes(app: FastifyInstance, dependencies: HttpDependencies): void {
  const { processor, log, store, version, now } = dependencies
  const startedMs = now()
  let wasOk = false
  const health = (): Health => {
    const state = processor.health()
    if (state.status === 'ok') wasOk = true
    return state
  }

  const responses = {
    200: jsonResponse(HealthSchema, 'All is well'),
    503: jsonResponse(HealthSchema, 'Something is wrong'),
  }
  const healthSchema = { tags: ['operations'], summary: 'The truth about this process', response: responses }
  app.get('/health', { schema: healthSchema, config: { scope: 'probe' } }, (_request, reply) => {
    const state = withFileFaults(health(), dependencies)
    const uptimeS = Math.max(0, Math.floor((now() - startedMs) / 1000))
    reply.code(state.status === 'ok' ? 200 : 503)
    const notes = dependencies.notes?.() ?? []
    return { ...state, notes, log: log.description, store: store.description, version, uptime_s: uptimeS }
  })

  const StatusSchema = object({ status: { type: 'string' } })
  const livezSchema = {
    tags: ['operations'],
    summary: 'Whether the process runs',
    response: { 200: jsonResponse(StatusSchema, 'It does') },
  }
  app.get('/livez', { schema: livezSchema, config: { scope: 'probe' } }, () => ({ status: 'ok' }))

  const readyzSchema = {
    tags: ['operations'],
    summary: 'Whether traffic may be sent here',
    response: { 200: jsonResponse(StatusSchema, 'Ready'), 503: jsonResponse(StatusSchema, 'Not ready') },
  }
  app.get('/readyz', { schema: readyzSchema, config: { scope: 'probe' } }, (_request, reply) => {
    const { status, problems } = health()
    const isReady = status === 'ok' || (status === 'error' && wasOk)
    reply.code(isReady ? 200 : 503)
    return { status: isReady ? 'ready' : 'not ready', processor: status, problems }
  })
}
