// The library's errors in our words. They come nested (one per broker, per attempt, per partition); people need the
// innermost reason in one line, and the processor needs to know whether the same call may succeed later. Nothing of a
// request is quoted, so no password can get into a log line this way. What concerns logins, certificates and rights is
// security-faults.ts's.

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

/** Kafka's name of an error, such as UNKNOWN_TOPIC_ID, anywhere in it. */
export function hasApiId(error: unknown, ...apiIds: string[]): boolean {
  return apiIds.some((apiId) => findErrorBy(error as Error, 'apiId', apiId) !== null)
}

export function isUnknownTopic(error: unknown): boolean {
  const unknown = findErrorBy(error as Error, 'code', 'PLT_KFK_USER') as Leaf | null
  return hasApiId(error, 'UNKNOWN_TOPIC_OR_PARTITION') || unknown?.message?.startsWith('Unknown topic') === true
}

/** What is wrong and what to do, where that is known; else the innermost reasons. In one line. */
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

const FOR_GOOD = ['PLT_KFK_USER', 'PLT_KFK_UNSUPPORTED', 'PLT_KFK_UNSUPPORTED_API']
// The library calls these final, yet they say nothing about what was sent. The last is what a broker that is just starting
// answers to a new topic (seen with 3.9 and 4.1); where there are really too few, one broker more is all that it takes.
const PASSING = ['UNKNOWN_SERVER_ERROR', 'BROKER_NOT_AVAILABLE', 'INVALID_REPLICATION_FACTOR']

function isRetriable(leaf: Leaf): boolean {
  // The library calls it a mistake of the user's; but a topic may be made a moment from now.
  if (leaf.message?.startsWith('Unknown topic')) return true
  // What it means is told by security-faults.ts, where it means something; else a broker went away during a login.
  if (leaf.code === 'PLT_KFK_AUTHENTICATION') return true
  if (leaf.apiId !== undefined && PASSING.includes(leaf.apiId)) return true
  if (leaf.code !== undefined && FOR_GOOD.includes(leaf.code)) return false
  // The library calls a time-out not retriable, because the request may have been carried out; ours may all be repeated.
  if (leaf.message?.includes('timed out')) return true
  const cause = leaf.cause as Leaf | undefined
  if (cause !== undefined && !isRetriable(cause)) return false
  return leaf.canRetry !== false
}
