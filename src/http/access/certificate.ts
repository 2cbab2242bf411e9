// The certificate and key of HTTPS, read from two PEM files and checked against each other: the effective pair always
// matches, also while the two files are being replaced one after the other.

import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'

export interface Certificate {
  /** PEM: the server's own certificate first, then the intermediates. */
  cert: string
  /** PEM. */
  key: string
}

/** Reads both files; throws an Error that names the fault and never quotes the files. */
export function readCertificate(certPath: string, keyPath: string): Certificate {
  const cert = read(certPath, 'certificate')
  const key = read(keyPath, 'key')
  const parsed = parse(`Cannot use the certificate in "${certPath}": expected PEM`, () => new X509Certificate(cert))
  const why = `Cannot use the key in "${keyPath}": expected a private key in PEM, without a passphrase`
  const privateKey: KeyObject = parse(why, () => createPrivateKey(key))
  if (!parsed.checkPrivateKey(privateKey)) {
    throw new Error(`The key in "${keyPath}" does not belong to the certificate in "${certPath}": expected its own`)
  }
  return { cert, key }
}

function read(path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`Cannot read the ${what} in "${path}": ${(error as NodeJS.ErrnoException).code}`, { cause: error })
  }
}

function parse<T>(why: string, action: () => T): T {
  try {
    return action()
  } catch (error) {
    throw new Error(why, { cause: error })
  }
}
