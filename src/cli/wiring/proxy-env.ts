// The proxy that the agent's requests take, by the variables that every client reads: HTTPS_PROXY, HTTP_PROXY and
// NO_PROXY, also in lower case, which wins. node:http does the rest, but ignores an address that it does not
// understand, as `proxy:3128`: here that is read as curl reads it, or refused. An address of this machine is never sent
// to a proxy.

import { UsageError } from '../command.ts'

const LOOPBACK = /^((.+\.)?localhost|127\.\d+\.\d+\.\d+|\[::1\])$/i

/** The settings for node:http's `proxyEnv`; undefined when requests to `url` take no proxy. Throws a UsageError. */
export function proxyEnvFor(
  url: URL,
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> | undefined {
  if (LOOPBACK.test(url.hostname)) return undefined
  const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY'
  const value = settingOf(env, name)
  if (value === undefined) return undefined
  const address = value.includes('://') ? value : `http://${value}`
  if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol)) {
    // Not quoted: it may hold a password.
    throw new UsageError(`${name} cannot be used: expected an address like http://HOST:3128; or unset it`)
  }
  const except = settingOf(env, 'NO_PROXY')
  return { [name]: address, ...(except === undefined ? {} : { NO_PROXY: except }) }
}

function settingOf(env: Readonly<Record<string, string | undefined>>, name: string): string | undefined {
  return [env[name.toLowerCase()], env[name]]
    .map((text) => text?.trim())
    .find((text) => text !== undefined && text !== '')
}
