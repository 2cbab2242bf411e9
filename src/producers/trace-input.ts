// The bytes of a trace file, or of standard input, as lines. Gzip is recognized by its first bytes, whatever the name.
// What is no text is refused with what to do: a folder, UTF-16 (what Windows tools call Unicode), other compression.

import { createReadStream } from 'node:fs'
import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { MAX_RECORD_BYTES } from '../domain/events/json-object.ts'

export const MAX_LINE_BYTES = MAX_RECORD_BYTES
const LINE_FEED = 10
const HEAD_BYTES = 4

const UTF_16 = 'is UTF-16, expected UTF-8; convert it, as by iconv -f UTF-16 -t UTF-8'
/** What a file begins with that cannot be read; one zero byte is half of a UTF-16 letter without byte order mark. */
const REFUSED: readonly { begins: RegExp; message: string }[] = [
  { begins: /^(fffe|feff|00(?!00)|(?!00)..00)/, message: UTF_16 },
  { begins: /^504b0304/, message: 'is a zip archive, expected text or gzip; unpack it first' },
  { begins: /^28b52ffd/, message: 'is compressed by zstd, expected text or gzip; unpack it first, as by zstd -d' },
  { begins: /^fd377a58/, message: 'is compressed by xz, expected text or gzip; unpack it first, as by xz -d' },
  { begins: /^425a68/, message: 'is compressed by bzip2, expected text or gzip; unpack it first, as by bzip2 -d' },
  { begins: /^50415231/, message: 'is a Parquet file, expected CSV or JSON lines; export it as one of them' },
]

/**
 * The lines without their line feed, the last one whether it has one or not; null for one that is too long.
 * @throws the file system's error, an error for what is refused, and zlib's (`isDamagedGzip`).
 */
export async function* linesOf(path: string, input?: AsyncIterable<Buffer>): AsyncGenerator<Buffer | null> {
  let parts: Buffer[] = []
  let bytes = 0
  for await (const chunk of textOf(path, input ?? fileAt(path))) {
    let from = 0
    for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, from)) {
      bytes += end - from
      yield bytes > MAX_LINE_BYTES ? null : Buffer.concat([...parts, chunk.subarray(from, end)])
      parts = []
      bytes = 0
      from = end + 1
    }
    bytes += chunk.length - from
    if (bytes > MAX_LINE_BYTES) parts = []
    else if (from < chunk.length) parts.push(chunk.subarray(from))
  }
  if (bytes > 0) yield bytes > MAX_LINE_BYTES ? null : Buffer.concat(parts)
}

/** Whether reading failed since gzip data is cut off or damaged: the lines before that are good. */
export function isDamagedGzip(error: unknown): boolean {
  return /^Z_/.test(String((error as NodeJS.ErrnoException).code))
}

async function* fileAt(path: string): AsyncGenerator<Buffer> {
  try {
    yield* createReadStream(path) as AsyncIterable<Buffer>
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EISDIR') throw error
    throw new Error(`Cannot read "${path}": is a folder, expected a file; replay its files one by one`)
  }
}

/** The same bytes, unzipped where they are gzip. */
async function* textOf(path: string, source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const chunks = source[Symbol.asyncIterator]()
  let head = Buffer.alloc(0)
  while (head.length < HEAD_BYTES) {
    const next = await chunks.next()
    if (next.done === true) break
    head = Buffer.concat([head, next.value])
  }
  const all = async function* () {
    try {
      yield head
      for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value
    } finally {
      await chunks.return?.()
    }
  }
  const begin = head.subarray(0, HEAD_BYTES).toString('hex')
  const refused = REFUSED.find(({ begins }) => begins.test(begin))
  if (refused !== undefined) {
    await chunks.return?.()
    throw new Error(`Cannot read "${path}": ${refused.message}`)
  }
  if (!begin.startsWith('1f8b')) return yield* all()
  const gunzip = createGunzip()
  // An error on the way destroys gunzip, and reaches the loop over it.
  pipeline(Readable.from(all()), gunzip, () => {})
  yield* gunzip as AsyncIterable<Buffer>
}
