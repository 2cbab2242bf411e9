// Checks of `doctor`: clocks. Event times are the producers', so the cost of a host whose clock is off by minutes is
// put into the wrong minutes, or its events count as late. Visible from here are the clock of MongoDB's machine and
// event times in the future; a host whose clock is behind looks like one that has stopped.

import type { Finding } from './finding.ts'

/** How far other clocks are ahead of this machine's, milliseconds; null where that is unknown. */
interface ClockOffsets {
  mongoMs: number | null
  newestRecordMs: number | null
  /** Of the newest sample of each host. */
  hosts: readonly { host: string | null; aheadMs: number }[]
}

const TOLERANCE_MS = 60_000
const MAX_HOSTS = 5
const REMEDY = 'set it right there, for good with time synchronisation (timedatectl set-ntp true)'

export function clockFindings({ mongoMs, newestRecordMs, hosts }: ClockOffsets): Finding[] {
  const findings: Finding[] = []
  const wrong = (message: string) => findings.push({ part: 'clock', ok: false, message })
  if (mongoMs !== null && Math.abs(mongoMs) > TOLERANCE_MS) {
    const direction = mongoMs > 0 ? 'behind' : 'ahead of'
    wrong(`This machine's clock is ${spanText(mongoMs)} ${direction} MongoDB's: one of the two is off; ${REMEDY}`)
  }
  const ahead = hosts.filter(({ aheadMs }) => aheadMs > TOLERANCE_MS)
  for (const { host, aheadMs } of ahead.slice(0, MAX_HOSTS)) {
    const name = host === null ? 'a host without name' : `host "${host}"`
    wrong(`The clock of ${name} is ${spanText(aheadMs)} ahead of this machine's: ${REMEDY}`)
  }
  if (ahead.length > MAX_HOSTS) wrong(`Clocks of ${ahead.length - MAX_HOSTS} more hosts are ahead: ${REMEDY}`)
  if (ahead.length === 0 && newestRecordMs !== null && newestRecordMs > TOLERANCE_MS) {
    wrong(`The log's newest record is from ${spanText(newestRecordMs)} ahead: a producer's clock is off; ${REMEDY}`)
  }
  if (findings.length > 0) return findings
  if (mongoMs === null) return []
  return [{ part: 'clock', ok: true, message: `Within ${Math.ceil(Math.abs(mongoMs) / 1000)} s of MongoDB's` }]
}

function spanText(ms: number): string {
  const minutes = Math.abs(ms) / 60_000
  return minutes < 120 ? `${minutes.toFixed(1)} min` : `${(minutes / 60).toFixed(1)} h`
}
