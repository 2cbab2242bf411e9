// Client of a running pertoken, which a command asks instead of opening the store (`--url`), with the API token of the
// settings where there is one. A denied request is reported with the text of its problem document; every other failure
// with the address and what to do. Redirects are not followed: the token is for the address that was given.

import { UsageError } from './command.ts'

const TIMEOUT_MS = 600_000
/** Node's error codes for a certificate that no trusted authority has signed. */
const UNTRUSTED = /SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/

export class ApiClient {
  readonly #base: URL
  readonly #headers: Readonly<Record<string, string>>

  constructor(url: string, token: string | null) {
    const base = URL.canParse(url) ? new URL(url) : null
    if (base === null || !/^https?:$/.test(base.protocol)) {
      throw new UsageError(`Flag --url is "${url}": expected an address like http://localhost:8080`)
    }
    this.#base = base
    this.#headers = token === null ? {} : { authorization: `Bearer ${token}` }
  }

  /** GETs a path; undefined parameters are left out. Throws an Error, or a UsageError for status 400. */
  async get(path: string, parameters: Readonly<Record<string, string | number | undefined>>): Promise<Response> {
    const url = this.#urlOf(path)
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    return this.#request(url, {})
  }

  /** PUTs JSON. Throws as `get` does. */
  async put(path: string, body: unknown): Promise<Response> {
    const headers = { 'content-type': 'application/json' }
    return this.#request(this.#urlOf(path), { method: 'PUT', headers, body: JSON.stringify(body) })
  }

  /** The path below the address, which may have a path of its own (a reverse proxy's). */
  #urlOf(path: string): URL {
    return new URL(this.#base.pathname.replace(/\/$/, '') + path, this.#base)
  }

  async #request(url: URL, init: RequestInit): Promise<Response> {
    let response: Response
    try {
      const headers = { ...init.headers, ...this.#headers }
      response = await fetch(url, { ...init, headers, redirect: 'manual', signal: AbortSignal.timeout(TIMEOUT_MS) })
    } catch (error) {
      const { cause, message } = error as { cause?: NodeJS.ErrnoException; message: string }
      const hint = UNTRUSTED.test(cause?.code ?? '')
        ? 'set NODE_EXTRA_CA_CERTS to the PEM file of its authority'
        : 'check --url and that pertoken runs there'
      throw new Error(`Cannot reach ${url.origin}: ${(cause?.message ?? message).split(';', 1)[0]}; ${hint}`)
    }
    if (response.ok) return response
    if (response.status >= 300 && response.status < 400) {
      const to = response.headers.get('location') ?? 'nowhere'
      throw new Error(`${url.origin} sends on to ${to}: give the address that it has there as --url`)
    }
    const problem = (await response.json().catch(() => ({}))) as {
      detail?: string
      errors?: { path: string; message: string }[]
    }
    const lines = (problem.errors ?? []).map(({ path, message }) => `\n  ${path}: ${message}`).join('')
    const login = response.status === 401 ? '\n  API_TOKEN or API_TOKEN_FILE holds the token for --url' : ''
    const detail = `${problem.detail ?? `${url.origin} answered ${response.status}`}${lines}${login}`
    throw response.status === 400 ? new UsageError(detail) : new Error(detail)
  }
}
