// Converts whatever the driver throws, and whatever the server replies, into a StoreError with what failed, where, and
// whether a retry can help. The processor repeats a retriable step for ever, so the rule is: an error is hopeless only
// when the same call must fail again (the document or the command is wrong); every other one, unknown codes included,
// is retriable, because waiting loses nothing and giving up might. Refused logins, certificates and rights are
// retriable: see security-faults.ts.

import {
  BSON,
  MongoAPIError,
  MongoClientClosedError,
  MongoError,
  MongoNotConnectedError,
  MongoParseError,
  MongoServerError,
  MongoServerSelectionError,
  MongoTopologyClosedError,
} from 'mongodb'
import { StoreError } from '../event-store.ts'
import { type Access, closingHint, securityFault } from './security-faults.ts'

/** Codes of the server after which the same call fails again: wrong data, wrong command. */
const HOPELESS_CODES = new Set([
  2, // BadValue
  9, // FailedToParse
  14, // TypeMismatch
  20, // IllegalOperation
  22, // InvalidBSON
  40, // ConflictingUpdateOperators
  52, // DollarPrefixedFieldName
  53, // InvalidIdField
  55, // InvalidDBRef
  56, // EmptyFieldName
  57, // DottedFieldName
  59, // CommandNotFound
  66, // ImmutableField
  72, // InvalidOptions
  73, // InvalidNamespace
  115, // CommandNotSupported
  121, // DocumentValidationFailure
  166, // CommandNotSupportedOnView
  10334, // BSONObjectTooLarge
  11000, // DuplicateKey on another index; those on _id are counted before this table is consulted
  17280, // KeyTooLong
  40415, // unknown field of a command
])

/** What a reply contains about one failed write, or about its write concern. */
export interface ServerFault {
  code?: number
  errmsg?: string
}

export function isHopeless(fault: ServerFault): boolean {
  return fault.code !== undefined && HOPELESS_CODES.has(fault.code)
}

/** `at` names the servers, for remedies. */
export function storeErrorOf(
  error: unknown,
  action: string,
  { at, access }: { at: string; access: Access },
): StoreError {
  if (error instanceof StoreError) return error
  // Each of several servers may have its own state: those are listed.
  const isOfSeveral = error instanceof MongoServerSelectionError && (error.reason?.servers.size ?? 0) > 1
  const fault = isOfSeveral ? null : securityFault(error, at, access)
  if (fault !== null) {
    return new StoreError(`Cannot ${action}: ${fault.text}`, { retriable: true, hasRemedy: true, cause: error })
  }
  const text = textOf(error, access)
  const renamed = renamedMembers(error, at)
  if (renamed !== '') {
    return new StoreError(`Cannot ${action}: ${text}; ${renamed}`, { retriable: true, hasRemedy: true, cause: error })
  }
  return new StoreError(`Cannot ${action}: ${text}`, { retriable: isRetriable(error), cause: error })
}

/**
 * What to do where a replica set sends its clients on to names of its members that are not those of MONGO_URL, and are
 * not reachable: the counterpart of Kafka's advertised.listeners. '' where that is not it.
 */
function renamedMembers(error: unknown, at: string): string {
  if (!(error instanceof MongoServerSelectionError)) return ''
  const named = at.toLowerCase().split(',')
  // With mongodb+srv:// DNS names the members, and `at` is the name that it was asked for, without a port.
  if (!named.every((address) => /:\d+$/.test(address))) return ''
  const servers = [...(error.reason?.servers.values() ?? [])]
  const others = servers.filter(({ address, type }) => type === 'Unknown' && !named.includes(address.toLowerCase()))
  if (others.length === 0) return ''
  const { setName } = error.reason as { setName?: string | null }
  const set = setName === null || setName === undefined ? 'the replica set' : `the replica set "${setName}"`
  const direct =
    servers.length > 1 ? '' : ', or, for the one server that MONGO_URL names, add directConnection=true to MONGO_URL'
  return (
    `${set} behind ${at} names its members otherwise than MONGO_URL, ${others.map(({ address }) => address).join(', ')}, ` +
    `and clients use its names: let them lead there from here (DNS, /etc/hosts), or change them with rs.reconfig()${direct}`
  )
}

function isRetriable(error: unknown): boolean {
  // After a failed first connection the driver reports a closed topology; that is transient. A store that was closed by
  // its owner never gets here.
  const notConnected = [MongoNotConnectedError, MongoTopologyClosedError, MongoClientClosedError]
  if (notConnected.some((type) => error instanceof type)) return true
  if (error instanceof MongoServerError) return !isHopeless(error as ServerFault)
  if (error instanceof MongoAPIError || error instanceof MongoParseError) return false
  if (error instanceof BSON.BSONError) return false
  if (error instanceof MongoError) return true
  return isTimeout(error) || isNameLookup(error)
}

/** The deadline of one call, see MongoConnection.command. */
function isTimeout(error: unknown): boolean {
  return error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError')
}

/** mongodb+srv:// is resolved by DNS before any server is contacted; such errors are Node's own. */
function isNameLookup(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error && String(error.syscall).startsWith('query')
}

function textOf(error: unknown, access: Access): string {
  if (error instanceof MongoServerSelectionError) return selectionText(error, access)
  if (isTimeout(error)) return 'no response in time'
  if (error instanceof MongoServerError && error.code !== undefined) return `${error.message} (code ${error.code})`
  return error instanceof Error ? error.message : String(error)
}

/** The driver's text is "Server selection timed out"; operators need each host's state and the reason. */
function selectionText(error: MongoServerSelectionError, access: Access): string {
  const servers = [...(error.reason?.servers.values() ?? [])]
  if (servers.length === 0) return error.message
  const states = servers.map((server) => {
    const state = server.type === 'Unknown' ? 'not reachable' : server.type
    const { error: reason, address } = server
    if (reason === null) return `${address} (${state})`
    const text = securityFault(reason, address, access)?.text ?? `${reason.message}${closingHint(reason, access)}`
    return `${address} (${state}: ${text})`
  })
  return `no server to write to among ${states.join(', ')}`
}
