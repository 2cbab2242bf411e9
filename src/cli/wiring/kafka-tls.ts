// TLS to Kafka from the settings: whose certificates are believed, and our own for brokers that want one. The files are
// looked at for each new connection, so that a renewed certificate counts without a restart; what cannot be used then leaves the
// last good ones in force, while at the start it is wrong usage.

import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { getCACertificates } from 'node:tls'
import { readCertificate } from '../../http/access/certificate.ts'
import type { Logger } from '../../runtime/logger.ts'
import { WatchedFile } from '../../runtime/watched-file.ts'
import { UsageError } from '../command.ts'
import type { Config } from '../options.ts'

interface Texts {
  ca?: string | string[]
  cert?: string
  key?: string
}

/** Asked by each new connection; undefined where the settings want no TLS. Throws a UsageError for unusable files. */
export function kafkaTls(config: Config, logger: Logger): (() => Texts) | undefined {
  const { KAFKA_TLS_CA: ca, KAFKA_TLS_CERT: cert, KAFKA_TLS_KEY: key } = config
  if (ca === null && cert === null) return undefined
  const read = (): Texts => ({
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

/** Those of this machine; in an image without any, those that come with Node. */
function systemAuthorities(): string[] {
  const system = getCACertificates('system')
  return system.length > 0 ? system : getCACertificates('default')
}

/** Node takes a file without certificates for an empty list and then believes nobody; people mistake the file. */
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
