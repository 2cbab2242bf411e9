// Sends to another pertoken: POST /api/v1/events with an array of at most 500 events, over one persistent connection,
// one request at a time, so that events stay in order. Certificates are verified, redirects are not followed (the token
// must not be sent to another server), and no message contains the token. node:http instead of fetch, which would take
// 10 MB.

import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import type { EventKind } from '../domain/events/event.ts'
import { classifyResponse, type HttpResponse } from './classify-response.ts'
import type { SendResult, Sink } from './sink.ts'
import type { SpoolRecord } from './spool.ts'

export interface HttpSinkOptions {
  /** http or https; may have the path of a reverse proxy. */
  url: URL
  /** Called before each request, so that the token's file may change; null: none is sent. */
  token: () => string | null
  /** PEM of the certificate authority to trust instead of the system's. */
  ca?: string | undefined
  /** HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as node:http takes them; absent: no proxy is taken. */
  proxyEnv?: Readonly<Record<string, string>> | undefined
  /** Limit of a whole request, milliseconds. */
  timeoutMs?: number
}

const MAX_RECORDS = 500
const MAX_BODY_BYTES = 1024 * 1024
const MAX_RESPONSE_BYTES = 256 * 1024
const TIMEOUT_MS = 30_000
const COLLECTIONS: Readonly<Record<EventKind, string>> = { gpu: 'gpu_metrics', token: 'token_usage' }

export function httpSink({ url, token, ca, proxyEnv, timeoutMs = TIMEOUT_MS }: HttpSinkOptions): Sink {
  const isTls = url.protocol === 'https:'
  // Through a proxy, https is a tunnel: the certificate is the server's, and the proxy never sees the token.
  const settings = { keepAlive: true, maxSockets: 1, ...(proxyEnv === undefined ? {} : { proxyEnv }) }
  const agent = isTls ? new HttpsAgent({ ...settings, ...(ca === undefined ? {} : { ca }) }) : new HttpAgent(settings)
  const start = isTls ? httpsRequest : httpRequest
  return {
    description: url.origin,
    maxRecords: MAX_RECORDS,
    async send(kind, records, signal) {
      const body = arrayOf(records)
      if (body.length > MAX_BODY_BYTES && records.length > 1) return { kind: 'too-large' }
      const secret = token()
      const headers = {
        'content-type': 'application/json',
        'content-length': body.length,
        ...(secret === null ? {} : { authorization: `Bearer ${secret}` }),
      }
      try {
        const sent = start(eventsUrl(url, kind), { method: 'POST', agent, headers, signal })
        const response = await exchange(sent, { body, timeoutMs })
        return withoutSecret(classifyResponse(response, records.length, Date.now()), secret)
      } catch (error) {
        return withoutSecret(unreachable(error as NodeJS.ErrnoException, url, proxyEnv), secret)
      }
    },
    async close() {
      agent.destroy()
    },
  }
}

/** A JSON array of records, each of which is a JSON object. */
function arrayOf(records: readonly SpoolRecord[]): Buffer {
  const comma = Buffer.from(',')
  const parts = records.flatMap(({ value }, i) => (i === 0 ? [value] : [comma, value]))
  return Buffer.concat([Buffer.from('['), ...parts, Buffer.from(']')])
}

function eventsUrl(url: URL, kind: EventKind): URL {
  const path = url.pathname.replace(/\/$/, '').replace(/\/api\/v1\/events$/, '')
  return new URL(`${path}/api/v1/events?collection=${COLLECTIONS[kind]}`, url)
}

/** Sends the body and waits for the response, of which it keeps a bounded beginning. */
function exchange(
  sent: ClientRequest,
  { body, timeoutMs }: { body: Buffer; timeoutMs: number },
): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => sent.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs)
    const settle = (action: () => void) => {
      clearTimeout(timer)
      action()
    }
    sent.on('error', (error) => settle(() => reject(error)))
    sent.on('response', (response: IncomingMessage) => {
      const chunks: Buffer[] = []
      let bytes = 0
      const end = () => {
        const text = Buffer.concat(chunks).toString('utf8')
        settle(() => resolve({ status: response.statusCode!, headers: response.headers, body: text }))
      }
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        bytes += chunk.length
        if (bytes <= MAX_RESPONSE_BYTES) return
        end()
        sent.destroy()
      })
      response.on('end', end)
      response.on('error', (error) => settle(() => reject(error)))
    })
    sent.end(body)
  })
}

function unreachable(error: NodeJS.ErrnoException, url: URL, proxyEnv: HttpSinkOptions['proxyEnv']): SendResult {
  const code = error.code ?? ''
  const reason = error.message === '' || error instanceof AggregateError ? code : error.message
  const proxy = Object.keys(proxyEnv ?? {}).find((name) => name !== 'NO_PROXY')
  const way = proxy === undefined ? '' : `; ${proxy} is set, NO_PROXY names the hosts that are reached without it`
  const what = `Cannot reach ${url.origin}: ${withoutLogin(reason)}${way}`
  if (/CERT|SIGNATURE|SELF_SIGNED|ISSUER/.test(code)) {
    const message = `${what} (${code}): its certificate is not trusted, give its authority with --ca FILE or correct the name in --to`
    return { kind: 'failed', message, retryAfterMs: null, needsOperator: true }
  }
  if (code === 'EPROTO' || code === 'ERR_SSL_WRONG_VERSION_NUMBER') {
    const message = `Cannot reach ${url.origin}: no TLS is spoken there, check https:// and the port in --to${way}`
    return { kind: 'failed', message, retryAfterMs: null, needsOperator: true }
  }
  // A proxy that refuses the tunnel (403, 407) refuses the next one too; 502 and 504 pass.
  const needsOperator = code === 'ERR_PROXY_TUNNEL' && /HTTP\/1\.\d 4\d\d/.test(reason)
  return { kind: 'failed', message: what, retryAfterMs: null, needsOperator }
}

/** Without the name and password that the address of a proxy may have. */
function withoutLogin(text: string): string {
  return text.replaceAll(/\/\/[^/\s@]*@/g, '//***@')
}

/** Removes the token from the message, should a server quote it. */
function withoutSecret(result: SendResult, secret: string | null): SendResult {
  if (secret === null || result.kind !== 'failed') return result
  return { ...result, message: result.message.replaceAll(secret, '***') }
}
