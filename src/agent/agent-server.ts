// The agent's own /metrics (Prometheus) and /health, on a loopback port: what it has sampled and sent, what is waiting,
// and its faults. Plain node:http and hand-written text: a web framework and a metrics library would take more memory
// than the agent itself.

import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AgentState } from './agent-state.ts'
import type { Spool, SpoolStatus } from './spool.ts'
import type { EngineHealth } from './watch/watched-engine.ts'

/** What the server shows of a running agent. */
export interface AgentView {
  state: AgentState
  /** Name of the GPU source. */
  source: string
  /** Description of the sink. */
  sink: string
  spool: Pick<Spool, 'status'>
  /** Bound of the spool, bytes. */
  maxSpoolBytes: number
  version: string
  /** The engines under watch; absent: none are watched. */
  engines?: (() => readonly EngineHealth[]) | undefined
}

const MAX_CONNECTIONS = 32
const REQUEST_TIMEOUT_MS = 5000

/** Listens on loopback; port 0 takes any free port. Rejects when the port is in use. */
export function startAgentServer(view: AgentView, port: number): Promise<Server> {
  const server = createServer(async ({ method, url }, response) => {
    try {
      if (method !== 'GET') return sendJson(response, 405, { error: 'Only GET is possible here' })
      const status = await view.spool.status().catch(() => null)
      if (url === '/metrics') return send(response, 200, 'text/plain; version=0.0.4', metricsText(view, status))
      if (url !== '/health') return sendJson(response, 404, { error: 'Nothing is here: see /health and /metrics' })
      sendJson(response, view.state.faults.length > 0 ? 503 : 200, healthOf(view, status))
    } catch (error) {
      sendJson(response, 500, { error: (error as Error).message })
    }
  })
  server.maxConnections = MAX_CONNECTIONS
  server.requestTimeout = server.headersTimeout = REQUEST_TIMEOUT_MS
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(server))
  })
}

/** The body of /health; `status` is null when the spool cannot be queried. */
export function healthOf(view: AgentView, status: SpoolStatus | null): object {
  const { state, source, sink, maxSpoolBytes, version } = view
  return {
    status: state.faults.length > 0 ? 'error' : state.lastReadMs === null ? 'starting' : 'ok',
    problems: state.faults.map(({ part, message, sinceMs }) => ({ part, message, since: iso(sinceMs) })),
    notices: state.notices,
    source,
    gpus: state.gpus,
    last_read: iso(state.lastReadMs),
    sink,
    last_sent: iso(state.lastSentMs),
    samples: {
      read: state.counters.read,
      spooled: state.counters.spooled,
      sent: state.counters.sent,
      dropped: state.counters.dropped,
      refused: state.counters.refused,
      unspooled: state.counters.unspooled,
    },
    ...(view.engines === undefined ? {} : engineFields(view.engines(), state)),
    spool: { records: status?.records ?? null, bytes: status?.bytes ?? null, max_bytes: maxSpoolBytes },
    version,
  }
}

function engineFields(engines: readonly EngineHealth[], { counters }: AgentState): object {
  const { tokenEventsSpooled: spooled, tokenEventsSent: sent, tokenEventsRefused: refused } = counters
  return { engines, token_events: { spooled, sent, refused } }
}

/** The text of /metrics. */
export function metricsText(view: AgentView, status: SpoolStatus | null): string {
  const { state, source, maxSpoolBytes, version } = view
  const { counters } = state
  const lines: string[] = []
  const add = (name: string, type: 'counter' | 'gauge', help: string, value: number | null, labels = '') => {
    if (value === null) return
    lines.push(`# HELP pertoken_agent_${name} ${help}`, `# TYPE pertoken_agent_${name} ${type}`)
    lines.push(`pertoken_agent_${name}${labels} ${value}`)
  }
  add('info', 'gauge', 'Version, and where GPU figures come from', 1, `{version="${version}",source="${source}"}`)
  add('gpus', 'gauge', 'GPUs of the last reading', state.gpus)
  add('samples_read_total', 'counter', 'Samples that the GPU source gave', counters.read)
  add('read_failures_total', 'counter', 'Readings in which no GPU answered', counters.readFailures)
  add('samples_spooled_total', 'counter', 'Samples that are safe in the spool', counters.spooled)
  add('samples_unspooled_total', 'counter', 'Samples lost because the spool did not take them', counters.unspooled)
  add('samples_sent_total', 'counter', 'Samples that the other side has confirmed', counters.sent)
  add('samples_dropped_total', 'counter', 'Samples that a full spool has dropped, oldest first', counters.dropped)
  add('samples_refused_total', 'counter', 'Samples given up because the other side calls them wrong', counters.refused)
  add('send_failures_total', 'counter', 'Tries to send that failed and are repeated', counters.sendFailures)
  add('clock_steps_total', 'counter', 'How often the clock was set back', counters.clockSteps)
  add('problems', 'gauge', 'Things that are wrong now; /health names them', state.faults.length)
  add('spool_records', 'gauge', 'Samples that wait to be sent', status?.records ?? null)
  add('spool_bytes', 'gauge', 'Bytes that the spool holds', status?.bytes ?? null)
  add('spool_max_bytes', 'gauge', 'Bound of the spool', maxSpoolBytes)
  add('last_read_timestamp_seconds', 'gauge', 'When GPUs were last read', seconds(state.lastReadMs))
  add('last_sent_timestamp_seconds', 'gauge', 'When the other side last confirmed samples', seconds(state.lastSentMs))
  if (view.engines !== undefined) {
    add('engines', 'gauge', 'Inference engines under watch', view.engines().length)
    const { tokenEventsSpooled, tokenEventsSent, tokenEventsRefused } = counters
    add('token_events_spooled_total', 'counter', 'Token events that are safe in the spool', tokenEventsSpooled)
    add('token_events_sent_total', 'counter', 'Token events that the other side has confirmed', tokenEventsSent)
    add('token_events_refused_total', 'counter', 'Token events that the other side calls wrong', tokenEventsRefused)
  }
  return `${lines.join('\n')}\n`
}

function iso(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}

function seconds(ms: number | null): number | null {
  return ms === null ? null : ms / 1000
}

function sendJson(response: ServerResponse, code: number, body: object): void {
  send(response, code, 'application/json', `${JSON.stringify(body)}\n`)
}

function send(response: ServerResponse, code: number, type: string, text: string): void {
  response.writeHead(code, { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
  response.end(text)
}
