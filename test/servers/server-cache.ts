// Where installed servers lie, and whether what lies there is what was installed. Every directory in the cache carries
// a manifest (name, size, SHA-256 of each file), written before the directory was renamed into place, so a directory
// that exists is complete. A user of the cache checks the manifest once a process: a file that was cut short, replaced
// or added is an error that names it, never a server that behaves oddly.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { KAFKA_RELEASES, type KafkaLine, LLAMA_RELEASE, MONGOD_RELEASE } from './versions.ts'

const MANIFEST = 'manifest.json'
export const INSTALL_COMMAND = 'node test/servers/install.ts'

/** A server is not there, or not what was installed. The message ends with the command that would mend it. */
export class NotInstalled extends Error {
  override readonly name = 'NotInstalled'
}

type Manifest = Record<string, { size: number; sha256: string }>

export function cacheDirectory(): string {
  const given = process.env['PERTOKEN_TEST_CACHE']
  return given ? resolve(given) : resolve(import.meta.dirname, '../../.cache/servers')
}

export function kafkaDirectory(line: KafkaLine): string {
  return join(cacheDirectory(), `kafka-${KAFKA_RELEASES[line].version}`)
}

export function mongodDirectory(): string {
  return join(cacheDirectory(), `mongod-${MONGOD_RELEASE.version}`)
}

export function llamaDirectory(): string {
  return join(cacheDirectory(), `llama-${LLAMA_RELEASE.version}`)
}

const verified = new Map<string, Promise<void>>()

/** Checks a directory once a process. `pinned` are checksums from the table, which stand above the manifest. */
export function verifyOnce(directory: string, pinned: Readonly<Record<string, string>>): Promise<void> {
  const known = verified.get(directory)
  if (known) return known
  const checking = verifyDirectory(directory, pinned)
  verified.set(directory, checking)
  checking.catch(() => verified.delete(directory))
  return checking
}

export async function verifyDirectory(directory: string, pinned: Readonly<Record<string, string>>): Promise<void> {
  const manifest = await readManifest(directory)
  for (const [file, sha256] of Object.entries(pinned)) {
    if (manifest[file]?.sha256 !== sha256) throw damaged(directory, `${file} has not the checksum of versions.ts`)
  }
  const present = (await readdir(directory)).filter((file) => file !== MANIFEST)
  for (const file of present) if (!manifest[file]) throw damaged(directory, `${file} was not installed`)
  for (const [file, expected] of Object.entries(manifest)) {
    if (!present.includes(file)) throw damaged(directory, `${file} is missing`)
    const { size } = await stat(join(directory, file))
    if (size !== expected.size) throw damaged(directory, `${file} has ${size} bytes, not ${expected.size}`)
    if ((await sha256Of(join(directory, file))) !== expected.sha256) throw damaged(directory, `${file} has changed`)
  }
}

/** Writes the manifest of a freshly filled directory, after checking it against the table's checksums. */
export async function sealDirectory(directory: string, pinned: Readonly<Record<string, string>>): Promise<void> {
  const manifest: Manifest = {}
  for (const file of (await readdir(directory)).sort()) {
    const path = join(directory, file)
    manifest[file] = { size: (await stat(path)).size, sha256: await sha256Of(path) }
  }
  for (const [file, expected] of Object.entries(pinned)) {
    const actual = manifest[file]?.sha256 ?? 'no such file'
    if (actual !== expected) throw new Error(`Cannot accept download of "${file}": SHA-256 ${actual}, not ${expected}`)
  }
  await writeFile(join(directory, MANIFEST), `${JSON.stringify(manifest, null, 1)}\n`)
}

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}

async function readManifest(directory: string): Promise<Manifest> {
  try {
    return JSON.parse(await readFile(join(directory, MANIFEST), 'utf8')) as Manifest
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      throw new NotInstalled(`Cannot use "${directory}": not installed; run ${INSTALL_COMMAND}`)
    }
    throw damaged(directory, 'its manifest is not readable')
  }
}

function damaged(directory: string, state: string): NotInstalled {
  return new NotInstalled(`Cannot use "${directory}": ${state}; run ${INSTALL_COMMAND}`)
}
