// The address of this program's own HTTP server, HOST and PORT: as a URL, and why it cannot be listened at or resolved,
// with the setting to change.

import type { Config } from './options.ts'

/** A bind address that means every address of this machine: 0.0.0.0, ::, and longer ways to write them. */
export function isEveryAddress(host: string): boolean {
  return /^[0:.]+$/.test(host)
}

/** host:port; before a port an IPv6 address stands in brackets, and the % of its zone is encoded (RFC 6874). */
export function hostAndPort(host: string, port: number): string {
  return `${host.includes(':') ? `[${host.replace('%', '%25')}]` : host}:${port}`
}

/** URL of the server without a path, or with BASE_PATH. */
export function ownUrl(host: string, port: number, config: Pick<Config, 'HTTP_TLS_CERT' | 'BASE_PATH'>): string {
  const path = config.BASE_PATH === null ? '' : `${config.BASE_PATH}/`
  return `${config.HTTP_TLS_CERT === null ? 'http' : 'https'}://${hostAndPort(host, port)}${path}`
}

/** System errors of a bind address that this machine does not have, or that is no address. */
const NO_ADDRESS = /^(ENOTFOUND|EAI_\w+|EADDRNOTAVAIL|EINVAL|EAFNOSUPPORT|ENODEV|ENETUNREACH)$/

/** Why HOST cannot be used, null where the error has another cause; `source` names where the value came from. */
export function hostFault({ code = '' }: NodeJS.ErrnoException, host: string, source: string): string | null {
  if (!NO_ADDRESS.test(code)) return null
  const from = source === '' ? '' : ` (${source})`
  const remedy = /^\[.*\]$/.test(host)
    ? `write it without brackets, as ${host.slice(1, -1)}`
    : 'set HOST (or --host) to 0.0.0.0 for every address or to 127.0.0.1 for this machine only, or unset it: ' +
      'environments of conda and some shells set HOST to a name of their own'
  return `HOST is "${host}"${from}, which is no address of this machine (${code}): ${remedy}`
}

/** The error of listening with what to change; an unknown one as it is. */
export function listenFault(error: Error, host: string, port: number, source: string): Error {
  const { code } = error as NodeJS.ErrnoException
  const at = `Cannot listen on ${hostAndPort(host, port)}`
  if (code === 'EADDRINUSE') return new Error(`${at}: something else does; set PORT (or --port) to a free one`)
  if (code === 'EACCES') return new Error(`${at}: it is not permitted (EACCES); set PORT (or --port) to 1024 or above`)
  const fault = hostFault(error, host, source)
  return fault === null ? error : new Error(`${at}: ${fault}`, { cause: error })
}
