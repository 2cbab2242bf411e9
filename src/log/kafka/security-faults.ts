// Classifies failures of authentication, TLS and authorization, each with its remedy, in one line. They come from three
// sources: Kafka's error codes, Node's verification of the broker's certificate, and the broker's TLS alert about ours.
// What is matched of the library's texts and codes is pinned by test/log/kafka-library.test.ts.
//
// All of them are retriable: the record or request is not at fault, and most are fixed at the broker (a user is
// created, a right granted, a certificate renewed), after which the same call succeeds. As permanent errors they would
// do more harm than waiting: a dead letter would be cut as if it were too large, an agent's spool would give up. They
// are retried slowly (`securityPauseMs`), because brokers count and log failed logins, and some lock the user.
// Nothing of a request or of the broker's own text is quoted, so no password can reach a message.

import type { KafkaSettings } from './options.ts'

export interface SecurityFault {
  /** `rights` fail requests on an open connection, the others fail the opening of one. */
  kind: 'login' | 'tls' | 'rights'
  text: string
}

export type SecuritySettings = Pick<KafkaSettings, 'bootstrap' | 'sasl' | 'tls' | 'connections'>

/** The fields of the library's and Node's errors that are inspected. */
interface Failure {
  message?: string
  code?: string
  apiId?: string
  errors?: unknown[]
  cause?: unknown
  cert?: { subjectaltname?: string }
  host?: string
  response?: { mechanisms?: string[] }
}

/** How long after a connection's end its error may explain a caller's failure. */
const RECENT_MS = 1_000
/** A connection that a broker closes this soon was rejected. */
const REJECTED_WITHIN_MS = 5_000

/** The security fault behind an error; null when there is none. */
export function securityFault(error: unknown, settings: SecuritySettings): SecurityFault | null {
  let at = ''
  let mechanisms: readonly string[] = []
  for (const failure of chainOf(error)) {
    at = /^Connection to (\S+) failed/.exec(failure.message ?? '')?.[1] ?? at
    mechanisms = failure.response?.mechanisms ?? mechanisms
    const fault = faultOf(failure, { at: at || settings.bootstrap, mechanisms, settings })
    if (fault !== null) return fault
  }
  const end = recentEnd(settings)
  if (isConnectionClosed(error)) {
    const alert = alertOf(end?.error)
    return alert === null ? null : faultOfAlert(alert, `broker ${end!.address}`, settings)
  }
  const failed = [...chainOf(error)].find(({ code }) => code === 'PLT_KFK_AUTHENTICATION')
  return failed === undefined
    ? null
    : login(`the login at broker ${at || settings.bootstrap} failed: ${failed.message}`)
}

/**
 * The likely cause of a connection's end without an error: null unless the broker closed it as soon as it was open. The
 * broker may be stopping as well, so this is only a hint.
 */
export function closingHint(error: unknown, settings: SecuritySettings): string | null {
  const end = recentEnd(settings)
  if (!isConnectionClosed(error) || end === null || end.openMs > REJECTED_WITHIN_MS) return null
  const closed = `broker ${end.address} closed the connection as soon as it was open`
  if (settings.sasl === undefined) return `${closed}: it may want a login, then set KAFKA_SASL_MECHANISM`
  if (settings.tls === undefined) return `${closed}: its port may speak TLS, then set KAFKA_TLS_CA`
  return closed
}

/** The error, its nested errors and its causes. */
function* chainOf(error: unknown): Generator<Failure> {
  if (typeof error !== 'object' || error === null) return
  const failure = error as Failure
  yield failure
  for (const nested of Array.isArray(failure.errors) ? failure.errors : []) yield* chainOf(nested)
  yield* chainOf(failure.cause)
}

/** Also for the bare error code of a fetch response. */
export const TOPIC_RIGHT_MISSING =
  'the user has not this right on the topic: grant it READ, WRITE and DESCRIBE (kafka-acls)'

interface FaultContext {
  at: string
  mechanisms: readonly string[]
  settings: SecuritySettings
}

function faultOf(failure: Failure, { at, mechanisms, settings }: FaultContext): SecurityFault | null {
  const mechanism = settings.sasl?.mechanism
  switch (failure.apiId) {
    case 'SASL_AUTHENTICATION_FAILED':
      return login(
        `broker ${at} refuses the user or the password (${mechanism}): check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, and that the broker has this user for this mechanism`,
      )
    case 'UNSUPPORTED_SASL_MECHANISM':
      return login(
        `broker ${at} has no SASL mechanism ${mechanism}: set KAFKA_SASL_MECHANISM to one that it has (${mechanisms.join(', ') || 'it lists none'})`,
      )
    case 'ILLEGAL_SASL_STATE':
      return login(
        `broker ${at} takes no login on this port: name its SASL port in KAFKA_BOOTSTRAP, or unset KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD`,
      )
    case 'TOPIC_AUTHORIZATION_FAILED':
      return rights(TOPIC_RIGHT_MISSING)
    case 'GROUP_AUTHORIZATION_FAILED':
      return rights('the user has not this right on the consumer group: grant it READ (kafka-acls)')
    case 'CLUSTER_AUTHORIZATION_FAILED':
      return rights('the user may not create topics: grant it CREATE (kafka-acls), or create them as another user')
  }
  if (failure.message === 'Broker requires TLS.') {
    return tls(
      `broker ${recentEnd(settings)?.address ?? at} speaks TLS on this port: set KAFKA_TLS_CA to the file of its certificate authority, or to "system"`,
    )
  }
  const alert = alertOf(failure)
  if (alert !== null) return faultOfAlert(alert, `broker ${at}`, settings)
  if (failure.message?.startsWith('TLS handshake failed.') || isOtherProtocol(failure)) {
    return tls(
      `broker ${at} seems not to speak TLS on this port, the handshake broke off: name its TLS port in KAFKA_BOOTSTRAP, or unset KAFKA_TLS_CA, KAFKA_TLS_CERT and KAFKA_TLS_KEY`,
    )
  }
  return faultOfCertificate(failure, at)
}

/**
 * By Node's code of why verification of the broker's certificate failed:
 * https://nodejs.org/api/tls.html#x509-certificate-error-codes
 */
function faultOfCertificate({ code = '', cert, host }: Failure, at: string): SecurityFault | null {
  const certificate = `the certificate of broker ${at}`
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return tls(`${certificate} has expired: renew it at the broker, or set this machine's clock right`)
    case 'CERT_NOT_YET_VALID':
      return tls(`${certificate} is not valid yet: set the clock of this machine or of its issuer right`)
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return tls(
        `${certificate} is for ${cert?.subjectaltname ?? 'no name'}, not for "${host}": reach the broker by a name of its certificate, or add this one to it`,
      )
  }
  if (!/^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_|CRL_|PATH_LENGTH_|HOSTNAME_)/.test(code)) return null
  return tls(
    `${certificate} is not signed by an authority that KAFKA_TLS_CA names (${code}): set it to the file of the broker's authority, or to "system"`,
  )
}

/** Numbers of TLS alerts: RFC 8446, section 6. */
const NO_COMMON_TLS = [70, 71]
/** With handshake_failure (40): before TLS 1.3 some brokers send it when a client certificate is missing. */
const ABOUT_CERTIFICATES = [40, 41, 42, 43, 44, 45, 46, 48, 49, 51, 116]

function faultOfAlert(alert: number, broker: string, settings: SecuritySettings): SecurityFault {
  if (NO_COMMON_TLS.includes(alert)) {
    return tls(`${broker} and this program have no TLS version or cipher in common (TLS alert ${alert})`)
  }
  if (!ABOUT_CERTIFICATES.includes(alert)) return tls(`${broker} closed the TLS session (alert ${alert})`)
  if (settings.connections.tls.cert === undefined) {
    return tls(`${broker} wants a client certificate (TLS alert ${alert}): set KAFKA_TLS_CERT and KAFKA_TLS_KEY`)
  }
  return tls(
    `${broker} refuses our client certificate (TLS alert ${alert}): check that KAFKA_TLS_CERT has not expired and is signed by an authority that the broker trusts`,
  )
}

function alertOf(error: unknown): number | null {
  for (const { message = '' } of chainOf(error)) {
    const number = /SSL alert number (\d+)/.exec(message)?.[1]
    if (number !== undefined) return Number(number)
  }
  return null
}

/** The response was not TLS, but HTTP for example. */
function isOtherProtocol({ code = '' }: Failure): boolean {
  return /^ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNKNOWN_PROTOCOL)$/.test(code)
}

function isConnectionClosed(error: unknown): boolean {
  return [...chainOf(error)].some(({ message }) => message === 'Connection closed')
}

function recentEnd({ connections }: SecuritySettings) {
  const end = connections.lastEnd
  return end !== null && performance.now() - end.atMs < RECENT_MS ? end : null
}

function login(text: string): SecurityFault {
  return { kind: 'login', text }
}

function tls(text: string): SecurityFault {
  return { kind: 'tls', text }
}

function rights(text: string): SecurityFault {
  return { kind: 'rights', text }
}
