// Failures of authentication, TLS and authorization, each with its remedy in one line. They arrive as the server's
// codes, as Node's error about the server's certificate, or as a TLS alert about ours, each wrapped by the driver.
//
// All of them are retriable: no document is at fault, and most are fixed at the server (a user is created, a role
// granted, a certificate renewed), after which the same call succeeds. The server's own text is not quoted: about a
// missing right it repeats the whole command, documents included.

import { MongoServerError } from 'mongodb'

/** The client's options that a remedy depends on. */
export interface Access {
  /** Database of the user; null: no login. */
  authSource: string | null
  tls: boolean
  /** Whether a server has ever been reached. */
  wasConnected: boolean
}

export interface SecurityFault {
  /** `rights` occur on an established connection, the others when one is opened. */
  kind: 'login' | 'tls' | 'rights'
  text: string
}

/**
 * Unauthorized, AuthenticationFailed, AtlasError:
 * https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
 */
const UNAUTHORIZED = 13
const LOGIN_REFUSED = [18, 8000]

/** The security fault that an error reports; null for any other error. `at` names the server. */
export function securityFault(error: unknown, at: string, access: Access): SecurityFault | null {
  for (const failure of chainOf(error)) {
    const fault = faultOfReply(failure, access) ?? faultOfTls(failure, at, access)
    if (fault !== null) return fault
  }
  return null
}

interface Failure {
  message?: string
  code?: unknown
  cause?: unknown
  cert?: { subjectaltname?: string }
  host?: string
}

/** The error and its causes. */
function* chainOf(error: unknown): Generator<Failure> {
  for (let link = error; typeof link === 'object' && link !== null; link = (link as Failure).cause)
    yield link as Failure
}

function faultOfReply(error: Failure, { authSource }: Access): SecurityFault | null {
  if (!(error instanceof MongoServerError)) return null
  if (LOGIN_REFUSED.includes(Number(error.code))) {
    const text = `the server refuses the user or the password: check the user in MONGO_URL, MONGO_PASSWORD, and that the user is one of database "${authSource}" (otherwise set authSource=… in MONGO_URL)`
    return { kind: 'login', text }
  }
  if (error.code !== UNAUTHORIZED) return null
  if (authSource === null) {
    const text = 'the server wants a login: name a user in MONGO_URL (mongodb://USER@host/…) and set MONGO_PASSWORD'
    return { kind: 'rights', text }
  }
  const [, database, verb, collection] =
    /on (\S+) to execute command \{ (\w+): (?:"([^"]*)")?/.exec(error.message) ?? []
  const where = `${collection === undefined || collection === '' ? '' : `${collection} of `}${database ?? 'the database'}`
  const text = `the user may not do "${verb ?? 'this'}" on ${where}: grant it the role that deploy/vm2-mongodb/roles.json describes`
  return { kind: 'rights', text }
}

function faultOfTls(error: Failure, at: string, { tls }: Access): SecurityFault | null {
  const text = tlsText(error, at, tls)
  return text === null ? null : { kind: 'tls', text }
}

/** Codes of Node: https://nodejs.org/api/tls.html#x509-certificate-error-codes. Alerts: RFC 8446, section 6. */
function tlsText({ code, message = '', cert, host }: Failure, at: string, tls: boolean): string | null {
  if (!tls) return null
  const certificate = `the certificate of ${at}`
  if (message.includes('before secure TLS connection was established') || /WRONG_VERSION_NUMBER/.test(String(code))) {
    return `${at} seems not to speak TLS, the handshake broke off: take tls=true out of MONGO_URL, or let the server speak TLS`
  }
  const alert = /SSL alert number (\d+)/.exec(message)?.[1]
  if (alert !== undefined) {
    return `${at} refuses our side of TLS (alert ${alert}): it may want a client certificate, tlsCertificateKeyFile in MONGO_URL`
  }
  switch (code) {
    case 'ENOENT':
    case 'EACCES':
      // Node's message names the file.
      return `cannot read a file that MONGO_URL names as tlsCAFile or tlsCertificateKeyFile: ${message}`
    case 'CERT_HAS_EXPIRED':
      return `${certificate} has expired: renew it at the server, or set this machine's clock right`
    case 'CERT_NOT_YET_VALID':
      return `${certificate} is not valid yet: set the clock of this machine or of its issuer right`
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return `${certificate} is for ${cert?.subjectaltname ?? 'no name'}, not for "${host}": use a name of its certificate in MONGO_URL, or add this one to it`
  }
  if (!/^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_|CRL_|PATH_LENGTH_|HOSTNAME_)/.test(String(code)))
    return null
  return `${certificate} is not signed by an authority that is trusted here (${code}): set tlsCAFile in MONGO_URL to the file of its authority`
}

/** A likely reason for a connection that ended without one, to append to a message; '' where there is none. */
export function closingHint(error: unknown, { tls, wasConnected }: Access): string {
  const isClosing = [...chainOf(error)].some(({ message = '' }) => /^connection .* closed$/.test(message))
  return isClosing && !tls && !wasConnected ? '; if it wants TLS, say tls=true (and tlsCAFile=…) in MONGO_URL' : ''
}
