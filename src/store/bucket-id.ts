// The id of a bucket: level, start and host in one text, the same in both stores. Ids of a level sort by (start, host),
// no host first, so a range of starts is a range of ids and the table's key is the only index that the ledger needs.
// The id of a bucket without host ends after its start, so it differs from that of any host, also of one named "" or
// "null". Starts are clamped to four-digit years: a query for "all time" may name any instant.

import { type BucketLevel, CELL_MS, LEVELS } from '../domain/ledger/buckets.ts'

const LETTER_OF: Readonly<Record<BucketLevel, string>> = { minute: 'm', hour: 'h', day: 'd' }
/** Year 0, parsed: `Date.UTC` takes two-digit years for those of the 20th century. */
const FIRST_MS = Date.parse('0000-01-01T00:00Z')
const LAST_MS = Date.UTC(9999, 11, 31, 23, 59)
/** Prefix of the host. */
const HOST = 'h:'
/** More buckets than this are found by reading their range and filtering by host. */
const MAX_IDS = 50_000

/** `m:2026-11-22T17:39Z:h:gpu-7`, and `m:2026-11-22T17:39Z:` without a host. */
export function bucketId(level: BucketLevel, startMs: number, host: string | null): string {
  return `${startText(level, startMs)}${host === null ? '' : HOST + host}`
}

/** The range of ids of all buckets with a start in [fromMs, toMs): `from` inclusive, `to` exclusive. */
export function bucketIdRange(level: BucketLevel, fromMs: number, toMs: number): { from: string; to: string } {
  return { from: startText(level, ceilToMinute(fromMs)), to: startText(level, ceilToMinute(toMs)) }
}

/**
 * The ids of these hosts' buckets with a start in [fromMs, toMs), in order, in pages; null where there would be so many
 * that reading all buckets of the range is cheaper.
 */
export function bucketIdPages(
  level: BucketLevel,
  range: { fromMs: number; toMs: number; hosts: readonly (string | null)[] },
  pageSize: number,
): Iterable<string[]> | null {
  const lengthMs = LEVELS[level].lengthMs
  const firstMs = Math.ceil(range.fromMs / lengthMs) * lengthMs
  const hosts = inIdOrder(range.hosts)
  if (hosts.length === 0) return []
  if (((range.toMs - firstMs) / lengthMs) * hosts.length > MAX_IDS) return null
  return pagesOf(level, { firstMs, toMs: range.toMs, hosts }, pageSize)
}

function* pagesOf(
  level: BucketLevel,
  { firstMs, toMs, hosts }: { firstMs: number; toMs: number; hosts: readonly (string | null)[] },
  pageSize: number,
): Generator<string[]> {
  let page: string[] = []
  for (let startMs = firstMs; startMs < toMs; startMs += LEVELS[level].lengthMs) {
    for (const host of hosts) {
      page.push(bucketId(level, startMs, host))
      if (page.length < pageSize) continue
      yield page
      page = []
    }
  }
  if (page.length > 0) yield page
}

/** Distinct hosts as their ids sort: no host first, then by UTF-8 bytes, as both databases compare text. */
function inIdOrder(hosts: readonly (string | null)[]): (string | null)[] {
  return [...new Set(hosts)].sort((a, b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? -1 : 1
    return Buffer.compare(Buffer.from(a), Buffer.from(b))
  })
}

function startText(level: BucketLevel, startMs: number): string {
  const ms = Math.min(Math.max(startMs, FIRST_MS), LAST_MS)
  return `${LETTER_OF[level]}:${new Date(ms).toISOString().slice(0, 16)}Z:`
}

function ceilToMinute(ms: number): number {
  return Math.ceil(ms / CELL_MS) * CELL_MS
}
