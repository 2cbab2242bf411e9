// Fetches one page of metrics: bounded in time (a server that sends a byte a second included), in size (also after
// decompression), without redirects (what is at another address was not asked for), one connection a page: servers
// close idle ones after a few seconds, which is how often a page is read. Name and password of the address are sent as
// basic authentication and stand in no message. node:http instead of fetch, which would take 10 MB.

import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createGunzip } from 'node:zlib'
import { MAX_PAGE_CHARS } from './parse-exposition.ts'

export interface FetchPageOptions {
  /** Limit of the whole exchange, milliseconds; 5 s when absent. */
  timeoutMs?: number
  /** Limit of the page, bytes, as it is sent and decompressed; 16 MiB when absent. */
  maxBytes?: number
  /** PEM of the certificate authority to trust instead of the system's. */
  ca?: string | undefined
  /** Ends the exchange. */
  signal?: AbortSignal | undefined
}

/**
 * `unreachable`: no connection, or it broke · `timeout` · `status`: not 200 · `redirect` · `certificate`: not trusted ·
 * `not-tls` · `too-large` · `encoding`: compressed, and not by gzip, or broken · `aborted`: by the signal.
 */
export type PageErrorCode =
  | 'unreachable'
  | 'timeout'
  | 'status'
  | 'redirect'
  | 'certificate'
  | 'not-tls'
  | 'too-large'
  | 'encoding'
  | 'aborted'

/** Why there is no page, and what to do; its message has neither name nor password. */
export class PageError extends Error {
  override name = 'PageError'
  readonly code: PageErrorCode
  /** What was answered instead of 200, for `status` and `redirect`. */
  readonly status: number | null

  constructor(code: PageErrorCode, message: string, status: number | null = null) {
    super(message)
    this.code = code
    this.status = status
  }
}

const TIMEOUT_MS = 5000
/** In the text format; a server that knows OpenMetrics only may send that. */
const ACCEPT = 'text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1'
/** Within one machine compressing costs more than it saves. */
const LOOPBACK = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/

/** For messages: without name, password, and query, which may be secret. */
export function shownUrl({ protocol, host, pathname }: URL): string {
  return `${protocol}//${host}${pathname}`
}

/**
 * The page's text, whole: a body that ends before its stated length fails.
 * @throws PageError
 */
export function fetchPage(url: URL, options: FetchPageOptions = {}): Promise<string> {
  const { timeoutMs = TIMEOUT_MS, maxBytes = MAX_PAGE_CHARS, ca, signal } = options
  const at = shownUrl(url)
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const headers = { accept: ACCEPT, 'accept-encoding': LOOPBACK.test(url.hostname) ? 'identity' : 'gzip' }
  let sent: ClientRequest | undefined
  const fail = (code: PageErrorCode, what: string, status: number | null = null) => {
    reject(new PageError(code, `Cannot read ${at}: ${what}`, status))
    sent?.destroy()
  }
  const limits = { maxBytes, fail }
  if (signal?.aborted === true) {
    return Promise.reject(new PageError('aborted', `Cannot read ${at}: it is no longer wanted`))
  }
  const onAbort = () => fail('aborted', 'it is no longer wanted')
  const timer = setTimeout(() => fail('timeout', `not whole within ${timeoutMs / 1000} s`), timeoutMs)
  signal?.addEventListener('abort', onAbort, { once: true })
  const settled = promise.finally(() => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  })
  const start = url.protocol === 'https:' ? httpsRequest : httpRequest
  try {
    sent = start(url, { agent: false, headers, auth: authOf(url), ...(ca === undefined ? {} : { ca }) })
    sent.on('error', (error: NodeJS.ErrnoException) => fail(...unreachable(error)))
    sent.on('response', (response) => receive(response, limits, resolve))
    sent.end()
  } catch (error) {
    // An address that is not http, or an authority that is no PEM.
    fail(...unreachable(error as NodeJS.ErrnoException))
  }
  return settled
}

interface Limits {
  maxBytes: number
  fail(code: PageErrorCode, what: string, status?: number): void
}

function receive(response: IncomingMessage, { maxBytes, fail }: Limits, resolve: (text: string) => void): void {
  const refusal = refusalOf(response)
  if (refusal !== null) {
    fail(...refusal, response.statusCode)
    return
  }
  const gunzip = response.headers['content-encoding'] === 'gzip' ? createGunzip() : null
  const body = gunzip === null ? response : response.pipe(gunzip)
  const chunks: Buffer[] = []
  let bytes = 0
  response.on('error', (error) => fail(...unreachable(error)))
  gunzip?.on('error', (error) => fail('encoding', `its gzip is broken (${error.message})`))
  body.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes <= maxBytes) chunks.push(chunk)
    else {
      chunks.length = 0
      gunzip?.destroy()
      fail('too-large', `it has over ${maxBytes} bytes`)
    }
  })
  body.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
}

/** Why a response has no page; null: it has one. */
function refusalOf({ statusCode: status = 0, headers }: IncomingMessage): [PageErrorCode, string] | null {
  const { location, 'content-encoding': encoding = 'identity' } = headers
  if (status >= 300 && status < 400) {
    const to = location === undefined ? '' : `, to ${withoutLogin(location).slice(0, 200)}`
    return ['redirect', `answered ${status}${to}; it is not followed, give the address of the page itself`]
  }
  if (status !== 200) return ['status', `answered ${status}, expected 200${REMEDIES[status] ?? ''}`]
  if (encoding === 'identity' || encoding === 'gzip') return null
  return ['encoding', `it is encoded as ${JSON.stringify(encoding.slice(0, 40))}, expected gzip or nothing`]
}

const REMEDIES: Readonly<Record<number, string>> = {
  401: '; give name and password in the address, https://NAME:PASSWORD@host',
  403: '; name and password may not read it',
  404: '; metrics may be turned off there, or at another path',
}

function authOf({ username, password }: URL): string | null {
  return username === '' && password === '' ? null : `${decoded(username)}:${decoded(password)}`
}

/** A name with a % of its own is taken as it stands. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function unreachable(error: NodeJS.ErrnoException): [PageErrorCode, string] {
  const code = error.code ?? ''
  const inner = error instanceof AggregateError ? (error.errors[0] as Error | undefined) : error
  const reason = withoutLogin(inner?.message ?? code)
  if (/CERT|SIGNATURE|SELF_SIGNED|ISSUER/.test(code)) {
    return ['certificate', `its certificate is not trusted (${code}: ${reason})`]
  }
  if (code === 'EPROTO' || code === 'ERR_SSL_WRONG_VERSION_NUMBER') return ['not-tls', 'no TLS is spoken there']
  return ['unreachable', reason === '' ? code : reason]
}

function withoutLogin(text: string): string {
  return text.replaceAll(/\/\/[^/\s@]*@/g, '//***@')
}
