// What became of each record, counted: exactly one of stored, duplicate, rejected; stored may be late as well. The sum
// equals the offsets read, which a test compares with the log's own offsets.

import type { ReasonCode } from '../../domain/events/rejection.ts'

export class Outcomes {
  stored = 0
  duplicate = 0
  /** Stored token events whose live window was gone. */
  late = 0
  readonly rejectedByReason = new Map<ReasonCode, number>()
  /** Offsets that were read; the sum of the outcomes once their steps are done. */
  read = 0

  reject(reason: ReasonCode): void {
    this.rejectedByReason.set(reason, (this.rejectedByReason.get(reason) ?? 0) + 1)
  }

  get rejected(): number {
    let sum = 0
    for (const count of this.rejectedByReason.values()) sum += count
    return sum
  }
}
