// Certificates for tests: an authority of our own and what it signs, made by openssl in a directory of the test's.
// Elliptic curves, because their keys take milliseconds. Each holder gets one PEM file with key and certificate, which
// is what Kafka's PEM keystores and mongod read, and the two parts, which is what clients are given.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runTool } from './run-tool.ts'

export type Certificate = {
  /** Paths of PEM files. */
  readonly cert: string
  readonly key: string
  /** Key and certificate in one file. */
  readonly both: string
}

export type Authority = {
  /** Path of its own certificate: what others are told to trust. */
  readonly ca: string
  /** `hosts` are names or addresses that it is valid for; a server's needs one, a client's does not. */
  sign(name: string, options?: { hosts?: readonly string[]; expired?: boolean }): Promise<Certificate>
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']

/** Makes an authority whose files lie in `directory`, under names that begin with `name`. */
export async function makeAuthority(directory: string, name: string): Promise<Authority> {
  const ca = join(directory, `${name}.pem`)
  const caKey = join(directory, `${name}.key`)
  const subject = `/O=pertoken tests/CN=authority ${name}`
  await openssl('req', '-x509', ...NEW_KEY, '-keyout', caKey, '-out', ca, '-days', '2', '-subj', subject)
  return {
    ca,
    async sign(holder, { hosts = [], expired = false } = {}) {
      const path = (ending: string) => join(directory, `${name}-${holder}.${ending}`)
      const [key, cert, request, both] = [path('key'), path('crt'), path('csr'), path('pem')]
      const names = hosts.map((host) => `${/^[\d.]+$/.test(host) ? 'IP' : 'DNS'}:${host}`).join(',')
      const extensions = names === '' ? [] : ['-addext', `subjectAltName=${names}`]
      await openssl('req', '-new', ...NEW_KEY, '-keyout', key, '-out', request, '-subj', `/CN=${holder}`, ...extensions)
      const validity = ['-days', expired ? '-1' : '2', '-copy_extensions', 'copy']
      await openssl('x509', '-req', '-in', request, '-CA', ca, '-CAkey', caKey, ...validity, '-out', cert)
      writeFileSync(both, `${readFileSync(key, 'utf8')}${readFileSync(cert, 'utf8')}`)
      return { cert, key, both }
    },
  }
}

async function openssl(...args: string[]): Promise<void> {
  await runTool('openssl', args)
}
