// Converts the library's errors to LogErrors. They come nested (one per broker, per attempt, per partition); operators
// need the innermost reasons in one line, and the processor needs to know whether the same call may succeed later.
// Nothing of a request is quoted, so no password can reach a log line this way. Logins, certificates and rights:
// security-faults.ts. What is matched here of the library's texts and codes is pinned by
// test/log/kafka-library.test.ts.

import { findErrorBy } from '@platformatic/kafka'
import { LogError } from '../event-log.ts'
import { closingHint, type SecuritySettings, securityFault } from './security-faults.ts'

interface Leaf {
  message?: string
  code?: string
  apiId?: string
  canRetry?: boolean
  serverErrorMessage?: string | null
  errors?: unknown[]
  cause?: unknown
}

/** Whether Kafka's name of an error, such as UNKNOWN_TOPIC_ID, is anywhere in it. */
export function hasApiId(error: unknown, ...apiIds: string[]): boolean {
  return apiIds.some((apiId) => findErrorBy(error as Error, 'apiId', apiId) !== null)
}

export function isUnknownTopic(error: unknown): boolean {
  const unknown = findErrorBy(error as Error, 'code', 'PLT_KFK_USER') as Leaf | null
  return hasApiId(error, 'UNKNOWN_TOPIC_OR_PARTITION') || unknown?.message?.startsWith('Unknown topic') === true
}

/** One line: the fault and its remedy where they are known, else the innermost reasons. */
export function explain(error: unknown, settings: SecuritySettings): string {
  const known = securityFault(error, settings)?.text ?? closingHint(error, settings)
  if (known !== null) return known
  const reasons = new Set(leaves(error).map(reasonOf))
  return [...reasons].slice(0, 3).join('; ')
}

export function toLogError(action: string, error: unknown, settings: SecuritySettings): LogError {
  if (error instanceof LogError) return error
  const hasRemedy = securityFault(error, settings) !== null
  const retriable = hasRemedy || leaves(error).every(isRetriable)
  return new LogError(`${action}: ${explain(error, settings)}`, { retriable, hasRemedy, cause: error })
}

function leaves(error: unknown): Leaf[] {
  const nested = (error as Leaf | undefined)?.errors
  if (Array.isArray(nested) && nested.length > 0) return nested.flatMap(leaves)
  return [(error ?? {}) as Leaf]
}

function reasonOf(leaf: Leaf): string {
  const own = (leaf.serverErrorMessage ?? leaf.message ?? String(leaf)).trim().replace(/\.$/, '')
  const text = leaf.apiId ? `${leaf.apiId} (${own})` : own
  if (leaf.cause === undefined) return text
  const cause = leaves(leaf.cause).map(reasonOf).join('; ')
  return cause && !text.includes(cause) ? `${text}: ${cause}` : text
}

const PERMANENT_CODES = ['PLT_KFK_USER', 'PLT_KFK_UNSUPPORTED', 'PLT_KFK_UNSUPPORTED_API']
// Not retriable to the library, yet none of them is about what was sent. A broker that is just starting responds with
// the last to a new topic (seen with 3.9 and 4.1); where there really are too few brokers, adding one is all that it
// takes.
const TRANSIENT_API_IDS = ['UNKNOWN_SERVER_ERROR', 'BROKER_NOT_AVAILABLE', 'INVALID_REPLICATION_FACTOR']

function isRetriable(leaf: Leaf): boolean {
  // A user's error to the library; but the topic may be created a moment from now.
  if (leaf.message?.startsWith('Unknown topic')) return true
  // Where it is a fault of the login, security-faults.ts names it; otherwise a broker went away during a login.
  if (leaf.code === 'PLT_KFK_AUTHENTICATION') return true
  if (leaf.apiId !== undefined && TRANSIENT_API_IDS.includes(leaf.apiId)) return true
  if (leaf.code !== undefined && PERMANENT_CODES.includes(leaf.code)) return false
  // A time-out is not retriable to the library, since the request may have been carried out; all of ours may be
  // repeated.
  if (leaf.message?.includes('timed out')) return true
  const cause = leaf.cause as Leaf | undefined
  if (cause !== undefined && !isRetriable(cause)) return false
  return leaf.canRetry !== false
}
