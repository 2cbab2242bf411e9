// Checks of `doctor`: disks, of this machine where it stores anything, of MongoDB and of the brokers where they report
// it. A full disk stops everything at once, and a database that ran into it may need help to start again.

import { existsSync, statfsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Finding } from './finding.ts'

export interface Disk {
  /** What is on it, for the message. */
  name: string
  freeBytes: number
  totalBytes: number
}

/** Less than both is too little: a share for small disks, an amount for large ones. */
const MIN_FREE_SHARE = 0.05
const MIN_FREE_BYTES = 1024 ** 3

/** The disk that holds a directory, or would hold it. */
export function diskOf(directory: string): Disk {
  let existing = resolve(directory)
  while (!existsSync(existing)) existing = dirname(existing)
  const { bsize, bavail, blocks } = statfsSync(existing)
  return { name: `DATA_DIR ${directory}`, freeBytes: bavail * bsize, totalBytes: blocks * bsize }
}

/** One finding for each disk. */
export function diskFindings(disks: readonly Disk[]): Finding[] {
  return disks.map(({ name, freeBytes, totalBytes }) => {
    const state = `${bytesText(freeBytes)} free of ${bytesText(totalBytes)}`
    if (freeBytes >= Math.min(MIN_FREE_BYTES, totalBytes * MIN_FREE_SHARE)) {
      return { part: 'disk', ok: true, message: `${name}: ${state}` }
    }
    const message = `Disk of ${name} is nearly full, ${state}: make room or keep less; full, nothing is stored any more`
    return { part: 'disk', ok: false, message }
  })
}

function bytesText(bytes: number): string {
  const [value, unit] = bytes >= 1024 ** 3 ? [bytes / 1024 ** 3, 'GiB'] : [bytes / 1024 ** 2, 'MiB']
  return `${value.toFixed(1)} ${unit}`
}
