// A running pertoken that a command asks instead of opening the store itself (`--url`). What it refuses arrives as a
// problem document and is said in its own words; everything else that goes wrong names the address and what to do.

import { UsageError } from './command.ts'

const TIMEOUT_MS = 600_000

/** One running server. */
export class Remote {
  readonly #base: URL

  constructor(url: string) {
    const base = URL.canParse(url) ? new URL(url) : null
    if (base === null || !/^https?:$/.test(base.protocol)) {
      throw new UsageError(`Flag --url is "${url}": expected an address like http://localhost:8080`)
    }
    this.#base = base
  }

  /** GETs a path with these parameters; the undefined are left out. Throws an Error for any other status than 200. */
  async get(path: string, parameters: Readonly<Record<string, string | number | undefined>>): Promise<Response> {
    const url = this.#urlOf(path)
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== undefined) url.searchParams.set(name, String(value))
    }
    return this.#answered(url, {})
  }

  /** PUTs JSON. */
  async put(path: string, body: unknown): Promise<Response> {
    const headers = { 'content-type': 'application/json' }
    return this.#answered(this.#urlOf(path), { method: 'PUT', headers, body: JSON.stringify(body) })
  }

  /** The path below the address, which may have a path of its own (a reverse proxy's). */
  #urlOf(path: string): URL {
    return new URL(this.#base.pathname.replace(/\/$/, '') + path, this.#base)
  }

  async #answered(url: URL, init: RequestInit): Promise<Response> {
    let response: Response
    try {
      response = await fetch(url, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) })
    } catch (error) {
      const cause = (error as { cause?: Error }).cause?.message ?? (error as Error).message
      throw new Error(`Cannot reach ${url.origin}: ${cause}; check --url and that pertoken runs there`)
    }
    if (response.ok) return response
    const problem = (await response.json().catch(() => ({}))) as {
      detail?: string
      errors?: { path: string; message: string }[]
    }
    const lines = (problem.errors ?? []).map(({ path, message }) => `\n  ${path}: ${message}`).join('')
    const detail = `${problem.detail ?? `${url.origin} answered ${response.status}`}${lines}`
    throw response.status === 400 ? new UsageError(detail) : new Error(detail)
  }
}
