// What the HTTP server is made of: everything that its routes need, handed over by cli/wire.ts. Nothing in this folder
// chooses an adapter, reads the environment or the clock by itself, so a test hands over what it wants to see.

import type { EventLog } from '../log/event-log.ts'
import type { Logger } from '../processor/logger.ts'
import type { Processor } from '../processor/processor.ts'
import type { EventStore } from '../store/event-store.ts'

export interface HttpParts {
  processor: Pick<Processor, 'live' | 'health' | 'outcomes'>
  store: EventStore
  log: EventLog
  /** Topics that posted events go to. */
  topics: { metric: string; token: string }
  /** Version of the program. */
  version: string
  logger: Logger
  /** Wall clock, epoch milliseconds. */
  now: () => number
}
