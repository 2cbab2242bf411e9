// Checks of `doctor`: the HTTP server that the settings describe. Whether it responds on this machine, and whether its
// API tokens and its certificate can be used.

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { get as httpGet, type IncomingMessage } from 'node:http'
import { get as httpsGet } from 'node:https'
import { json } from 'node:stream/consumers'
import { readTokens } from '../../http/access/api-tokens.ts'
import { readCertificate } from '../../http/access/certificate.ts'
import type { Config } from '../options.ts'
import { hostFault, isEveryAddress, ownUrl } from '../own-address.ts'
import type { Finding } from './finding.ts'

const TIMEOUT_MS = 3000
const DAY_MS = 86_400_000
/** A certificate that expires sooner is reported as wrong: it has to be renewed by hand, or its renewal is broken. */
const MIN_DAYS_LEFT = 7

/** One finding each for tokens and certificate, where the settings name them, and one for the server. */
export async function checkOwnHttp(config: Config): Promise<Finding[]> {
  const { API_TOKENS_FILE: tokens, HTTP_TLS_CERT: cert, HTTP_TLS_KEY: key } = config
  const nowMs = Date.now()
  return [
    ...(tokens === null ? [] : [finding('tokens', () => tokensState(tokens, nowMs))]),
    ...(cert === null || key === null ? [] : [finding('tls', () => certificateState(cert, key, nowMs))]),
    await serverState(config),
  ]
}

function finding(part: string, check: () => string): Finding {
  try {
    return { part, ok: true, message: check() }
  } catch (error) {
    return { part, ok: false, message: (error as Error).message }
  }
}

function tokensState(path: string, nowMs: number): string {
  const tokens = readTokens(path)
  if (tokens.length === 0) throw new Error(`There is no API token in "${path}": add one with pertoken tokens add`)
  const expired = tokens.filter(({ expiresMs }) => expiresMs !== null && expiresMs <= nowMs)
  const names = expired.length === 0 ? '' : `; expired: ${expired.map(({ name }) => name).join(', ')}`
  return `${tokens.length} API tokens in ${path}${names}`
}

function certificateState(certPath: string, keyPath: string, nowMs: number): string {
  const { validToDate } = new X509Certificate(readCertificate(certPath, keyPath).cert)
  const daysLeft = Math.floor((validToDate.getTime() - nowMs) / DAY_MS)
  const state = `Certificate in ${certPath} is good until ${validToDate.toISOString().slice(0, 10)}`
  if (daysLeft < MIN_DAYS_LEFT) throw new Error(`${state} only: renew it; a running server takes the new files over`)
  return state
}

async function serverState(config: Config): Promise<Finding> {
  const host = config.HOST === null || isEveryAddress(config.HOST) ? '127.0.0.1' : config.HOST
  const url = `${ownUrl(host, config.PORT, { ...config, BASE_PATH: null })}/health`
  try {
    const { status, problems = [] } = await requestHealth(host, config)
    if (status === 'ok') return { part: 'http', ok: true, message: `${url} says ok` }
    const why = problems.map(({ message }) => message).join('; ') || 'no problem named'
    return { part: 'http', ok: false, message: `${url} says ${status}: ${why}` }
  } catch (error) {
    const fault = hostFault(error as Error, host, '')
    if (fault !== null) return { part: 'http', ok: false, message: fault }
    const { code = '', message } = error as NodeJS.ErrnoException
    const hint = code === 'ECONNREFUSED' ? '' : ` (${message})`
    return {
      part: 'http',
      ok: false,
      message: `Nothing answers at ${url}${hint}: start pertoken up or pertoken processor`,
    }
  }
}

/**
 * GETs /health. The address is no URL, which has no room for the zone of an IPv6 address. With HTTPS the server must
 * present the certificate of the settings, whatever name is in it.
 */
async function requestHealth(host: string, { PORT: port, HTTP_TLS_CERT: certPath }: Config) {
  const to = { host, port, path: '/health', signal: AbortSignal.timeout(TIMEOUT_MS) }
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const pinned = { allowPartialTrustChain: true, checkServerIdentity: () => undefined }
    const request =
      certPath === null ? httpGet(to, resolve) : httpsGet({ ...to, ca: readFileSync(certPath), ...pinned }, resolve)
    request.on('error', reject)
  })
  return (await json(response)) as { status: string; problems?: { message: string }[] }
}
