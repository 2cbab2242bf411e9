// What the HTTP server is made of: everything that its routes need, handed over by cli/wire.ts. Nothing in this folder
// chooses an adapter, reads the environment or the clock by itself, so a test hands over what it wants to see.

import type { EventLog } from '../log/event-log.ts'
import type { Progress } from '../processor/cost/cost-reading.ts'
import type { Processor } from '../processor/ingest/processor.ts'
import type { KeeperStatus } from '../processor/ledger/keeper.ts'
import type { Logger } from '../runtime/logger.ts'
import type { WatchedFile } from '../runtime/watched-file.ts'
import type { EventStore } from '../store/event-store.ts'
import type { Access } from './access/auth.ts'
import type { Certificate } from './access/certificate.ts'

export interface HttpDependencies {
  processor: Pick<Processor, 'live' | 'health' | 'outcomes'>
  store: EventStore
  log: EventLog
  /** Topics that posted events go to. */
  topics: { metric: string; token: string }
  /** Version of the program. */
  version: string
  logger: Logger
  /** How far the log has been read, for `final`; without it no answer about cost is final. */
  progress?: Progress
  /** State of the keeper in this process; without it there is none. */
  keeper?: () => KeeperStatus
  /** How late an event may be and still be expected, milliseconds; 10 s when absent. */
  allowedLatenessMs?: number
  /** API tokens and limits; without them reads are open, and writes are for programs on this machine. */
  access?: Access
  /** What HTTPS is spoken with; without it plain HTTP. */
  certificate?: WatchedFile<Certificate>
  /** Wall clock, epoch milliseconds. */
  now: () => number
}
