// The dependencies of the HTTP server: everything that its routes and metrics need, passed in by cli/wiring/service.ts,
// and what both derive from it. Nothing in this folder chooses an adapter or reads the environment or the clock, so
// that a test can replace any of it.

import type { EventLog } from '../log/event-log.ts'
import { type CostSource, type Progress, UNKNOWN_PROGRESS } from '../processor/cost/cost-reading.ts'
import type { Note } from '../processor/identity-notes.ts'
import type { Health } from '../processor/ingest/health.ts'
import type { Processor } from '../processor/ingest/processor.ts'
import type { KeeperStatus } from '../processor/ledger/keeper.ts'
import type { Logger } from '../runtime/logger.ts'
import type { WatchedFile } from '../runtime/watched-file.ts'
import type { EventStore } from '../store/event-store.ts'
import type { Access } from './access/auth.ts'
import type { Certificate } from './access/certificate.ts'

/** Allowed lateness of events where none is given, milliseconds. */
const DEFAULT_LATENESS_MS = 10_000

export interface HttpDependencies {
  processor: Pick<Processor, 'live' | 'health' | 'outcomes'>
  store: EventStore
  log: EventLog
  /** Topics that posted events go to. */
  topics: { metric: string; token: string }
  /** Version of the program. */
  version: string
  logger: Logger
  /** How far the log has been read, for `final`; without it no cost is final. */
  progress?: Progress
  /** Status of the keeper in this process, if there is one. */
  keeper?: () => KeeperStatus
  /** What contradicts in the identity of hosts and GPUs; none when absent. */
  notes?: () => readonly Note[]
  /** Allowed lateness of events, milliseconds; 10 s when absent. */
  allowedLatenessMs?: number
  /** API tokens and limits; without them reads are open, and writes are allowed to programs on this machine. */
  access?: Access
  /** Certificate of HTTPS; without it plain HTTP. */
  certificate?: WatchedFile<Certificate>
  /** Path at which a reverse proxy shows the server, like `/pertoken`; absent or '': none. */
  basePath?: string
  /** Wall clock, epoch milliseconds. */
  now: () => number
}

/** Where the cost route and the gauges of the ledger read cost from. */
export function costSourceOf({ store, progress, allowedLatenessMs }: HttpDependencies): CostSource {
  const latenessMs = allowedLatenessMs ?? DEFAULT_LATENESS_MS
  return { ledger: store.ledger, progress: progress ?? UNKNOWN_PROGRESS, latenessMs }
}

/** The processor's health and the faults of the server's own files, which make it unhealthy but never unready. */
export function withFileFaults(health: Health, { access, certificate }: HttpDependencies): Health {
  const problems = [access?.tokens.fault, certificate?.fault].filter((fault) => fault != null)
  return problems.length === 0 ? health : { ...health, status: 'error', problems: [...health.problems, ...problems] }
}
