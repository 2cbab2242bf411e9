// TLS to Kafka from the settings: the trusted authorities, and a client certificate for brokers that require one. The
// files are checked for changes at each new connection, so that a renewed certificate needs no restart. Files that
// cannot be used then leave the last good ones in use; at the start they are wrong usage.

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { getCACertificates } from 'node:tls'
import { readCertificate } from '../../http/access/certificate.ts'
import type { Logger } from '../../runtime/logger.ts'
import { WatchedFile } from '../../runtime/watched-file.ts'
import { UsageError } from '../command.ts'
import type { Config } from '../options.ts'

interface PemTexts {
  ca?: string | string[]
  cert?: string
  key?: string
}

/**
 * Called for each new connection; undefined where the settings ask for no TLS. Throws a UsageError for unusable files.
 */
export function kafkaTls(config: Config, logger: Logger): (() => PemTexts) | undefined {
  const { KAFKA_TLS_CA: ca, KAFKA_TLS_CERT: cert, KAFKA_TLS_KEY: key } = config
  if (ca === null && cert === null) return undefined
  const read = (): PemTexts => ({
    ca: ca === null || ca === 'system' ? systemAuthorities() : readAuthorities(ca),
    ...(cert === null || key === null ? {} : readCertificate(cert, key)),
  })
  const paths = [ca, cert, key].flatMap((path) => (path === null || path === 'system' ? [] : [path]))
  try {
    const files = new WatchedFile({ code: 'kafka_certificates', what: 'certificates for Kafka', paths, read, logger })
    return () => {
      files.look()
      return files.value
    }
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** The authorities of this machine; in an image without any, those bundled with Node. */
function systemAuthorities(): string[] {
  const system = getCACertificates('system')
  return system.length > 0 ? system : getCACertificates('default')
}

/**
 * Checks the file, because Node takes one without certificates (the wrong file, mostly) for an empty list of
 * authorities.
 */
function readAuthorities(path: string): string {
  try {
    const text = readFileSync(path, 'utf8')
    new X509Certificate(text)
    return text
  } catch (error) {
    const state = (error as NodeJS.ErrnoException).syscall === undefined ? '' : ` (${(error as Error).message})`
    throw new Error(
      `KAFKA_TLS_CA is "${path}": expected a file with the certificate of an authority in PEM, or "system"${state}`,
    )
  }
}
