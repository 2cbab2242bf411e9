// The id of a span: level, start and host in one text, the same in both stores. Ids of a level sort by (start, host), no
// host first, so a range of starts is a range of ids and the key of the table is the only index that the ledger needs.
// A span without host ends after its start, so it is not the one of a host whose name is empty, "null" or anything else.
// Starts are cut to what a four-digit year can say: a question about "all time" may name any instant.

import { type BucketLevel, CELL_MS, LEVELS } from '../domain/ledger/buckets.ts'

const LETTER_OF: Readonly<Record<BucketLevel, string>> = { minute: 'm', hour: 'h', day: 'd' }
/** Year 0: `Date.UTC` takes two-digit years for those of the last century. */
const FIRST_MS = Date.parse('0000-01-01T00:00Z')
const LAST_MS = Date.UTC(9999, 11, 31, 23, 59)
/** What starts the host's part. */
const HOST = 'h:'
/** More spans than this are found by reading their range and leaving out other hosts. */
const MAX_IDS = 50_000

/** `m:2026-11-22T17:39Z:h:gpu-7`, and `m:2026-11-22T17:39Z:` without a host. */
export function bucketId(level: BucketLevel, startMs: number, host: string | null): string {
  return `${startText(level, startMs)}${host === null ? '' : HOST + host}`
}

/** The ids of all spans with a start in [fromMs, toMs): `from` included, `to` not. */
export function bucketIdRange(level: BucketLevel, fromMs: number, toMs: number): { from: string; to: string } {
  return { from: startText(level, ceilToMinute(fromMs)), to: startText(level, ceilToMinute(toMs)) }
}

/**
 * The ids of these hosts' spans with a start in [fromMs, toMs), in order, in pages; null where they would be so many
 * that reading all spans of the range is cheaper.
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

/** Hosts once each, as their ids sort: no host first, then by UTF-8 bytes, as both databases compare text. */
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
