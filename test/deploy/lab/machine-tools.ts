// What the tests of the four machines need beside the servers: the jar of Kafka's command-line tools, through mvn;
// MongoDB's shell, through npm (its image brings it on a real machine); a podman-compose that knows network_mode host,
// through pip. `node test/deploy/lab/machine-tools.ts` installs all into the cache of the servers, with the same care:
// made aside, checked, renamed. And a stand-in of the archive that Apache publishes, made of the cached jars: the same
// folders, with the few start scripts that deploy/ uses.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { installInto, pomFor, withPackages } from '../../servers/install.ts'
import { LOG4J_PROPERTIES } from '../../servers/kafka/kafka-settings.ts'
import { runTool } from '../../servers/run-tool.ts'
import { cacheDirectory, kafkaDirectory, NotInstalled, verifyOnce } from '../../servers/server-cache.ts'
import { KAFKA_RELEASES } from '../../servers/versions.ts'

const KAFKA_VERSION = KAFKA_RELEASES['3.9'].version
const KAFKA_TOOLS = `kafka-tools-${KAFKA_VERSION}`
const KAFKA_TOOLS_SHA256 = {
  [`${KAFKA_TOOLS}.jar`]: 'aae08609f1259e59db9746570c53d939820e9efa7a4c0fd7bf7d1b3508f34f11',
}
export const MONGOSH_VERSION = '2.12.0'
const MONGOSH_ARCHIVE = 'mongosh.tgz'
/** Debian 12's own (1.0.3) knows no network_mode host, and loses exit codes. */
const PODMAN_COMPOSE_VERSION = '1.5.0'
const PODMAN_COMPOSE_WHEEL = `podman_compose-${PODMAN_COMPOSE_VERSION}-py3-none-any.whl`
const PODMAN_COMPOSE_SHA256 = {
  [PODMAN_COMPOSE_WHEEL]: 'f0b9d35f4da1b309172adf208a5cb7a882b532a834c2202666c1988b6f147546',
}

/** What a script of the archive runs java with. */
const JAVA_WORDS =
  '$KAFKA_HEAP_OPTS $KAFKA_JVM_PERFORMANCE_OPTS -Dlog4j.configuration="file:$top/config/tools-log4j.properties" -cp "$top/libs/*"'

/** Main classes of the scripts in bin/ of the archive. */
const SCRIPTS = {
  'kafka-topics': 'org.apache.kafka.tools.TopicCommand',
  'kafka-console-producer': 'kafka.tools.ConsoleProducer',
  'kafka-console-consumer': 'org.apache.kafka.tools.consumer.ConsoleConsumer',
  'kafka-broker-api-versions': 'kafka.admin.BrokerApiVersionsCommand',
} as const

export async function installKafkaTools(): Promise<string> {
  return installInto(toolsDirectory(), KAFKA_TOOLS_SHA256, async (work, target) => {
    await writeFile(join(work, 'pom.xml'), pomFor([`org.apache.kafka:kafka-tools:${KAFKA_VERSION}`]))
    // The tools alone: what they stand on is among the broker's jars.
    const goal = ['-q', '-B', 'dependency:copy-dependencies', '-DexcludeTransitive=true', `-DoutputDirectory=${target}`]
    await withPackages(['openjdk-17-jdk-headless', 'maven'], () => runTool('mvn', goal, { cwd: work }))
  })
}

export async function installMongosh(): Promise<string> {
  return installInto(mongoshDirectory(), {}, async (work, target) => {
    const words = ['install', '--prefix', work, '--no-audit', '--no-fund', '--loglevel=error']
    await runTool('npm', [...words, '--omit=optional', '--ignore-scripts', `mongosh@${MONGOSH_VERSION}`], { cwd: work })
    await runTool('tar', ['-C', work, '-czf', join(target, MONGOSH_ARCHIVE), 'node_modules'])
  })
}

/** For the options of a test: false, or why it cannot run. Throws with CI=true. */
export async function skipWithoutMachineTools(): Promise<string | false> {
  try {
    await verifyOnce(toolsDirectory(), KAFKA_TOOLS_SHA256)
    await verifyOnce(mongoshDirectory(), {})
    await verifyOnce(podmanComposeDirectory(), PODMAN_COMPOSE_SHA256)
    return false
  } catch (error) {
    if (process.env['CI'] === 'true' || !(error instanceof NotInstalled)) throw error
    const reason = 'tools of the machines are not installed: run node test/deploy/lab/machine-tools.ts'
    console.error(`SKIPPED: ${reason} (${error.message})`)
    return reason
  }
}

export async function installPodmanCompose(): Promise<string> {
  return installInto(podmanComposeDirectory(), PODMAN_COMPOSE_SHA256, async (_work, target) => {
    const requirement = `podman-compose==${PODMAN_COMPOSE_VERSION}`
    await withPackages(['python3', 'python3-pip', 'podman-compose'], () =>
      runTool('pip', ['download', '-q', '--no-deps', '-d', target, requirement]),
    )
  })
}

/** The command of the compose that the tests use, for COMPOSE; its libraries are those of Debian's podman-compose. */
export async function podmanCompose(): Promise<string> {
  await verifyOnce(podmanComposeDirectory(), PODMAN_COMPOSE_SHA256)
  return `env PYTHONPATH=${join(podmanComposeDirectory(), PODMAN_COMPOSE_WHEEL)} /usr/bin/python3 -m podman_compose`
}

/** Path of an archive with `node_modules/mongosh/bin/mongosh.js`; rejects with NotInstalled where it is not. */
export async function mongoshArchive(): Promise<string> {
  await verifyOnce(mongoshDirectory(), {})
  return join(mongoshDirectory(), MONGOSH_ARCHIVE)
}

/** Writes the stand-in of Apache's archive; rejects with NotInstalled where jars are missing. Takes a second or two. */
export async function writeKafkaArchive(path: string): Promise<void> {
  await verifyOnce(kafkaDirectory('3.9'), KAFKA_RELEASES['3.9'].sha256)
  await verifyOnce(toolsDirectory(), KAFKA_TOOLS_SHA256)
  const scripts = await mkdtemp(join(tmpdir(), 'pertoken-kafka-archive-'))
  try {
    const top = `kafka_2.13-${KAFKA_VERSION}`
    const [bin, config] = [join(scripts, top, 'bin'), join(scripts, top, 'config')]
    await mkdir(bin, { recursive: true })
    await mkdir(config)
    await writeFile(join(config, 'tools-log4j.properties'), LOG4J_PROPERTIES)
    for (const [name, main] of Object.entries(SCRIPTS)) {
      const lines = ['#!/bin/sh', 'top=$(dirname "$0")/..', `exec java ${JAVA_WORDS} ${main} "$@"`, '']
      await writeFile(join(bin, `${name}.sh`), lines.join('\n'), { mode: 0o755 })
    }
    const jars = ['--transform', `s,^\\./\\([^/]*\\.jar\\)$,${top}/libs/\\1,`, '--exclude=*.json']
    const from = ['-C', scripts, top, '-C', kafkaDirectory('3.9'), '.', '-C', toolsDirectory(), '.']
    // Jars are compressed already.
    await runTool('tar', [...jars, '--use-compress-program=gzip -1', '-cf', path, ...from])
  } finally {
    await rm(scripts, { recursive: true, force: true })
  }
}

function toolsDirectory(): string {
  return join(cacheDirectory(), KAFKA_TOOLS)
}

function mongoshDirectory(): string {
  return join(cacheDirectory(), `mongosh-${MONGOSH_VERSION}`)
}

function podmanComposeDirectory(): string {
  return join(cacheDirectory(), `podman-compose-${PODMAN_COMPOSE_VERSION}`)
}

async function main(): Promise<void> {
  for (const [name, install] of [
    ['kafka tools', installKafkaTools],
    ['mongosh', installMongosh],
    ['podman-compose', installPodmanCompose],
  ] as const) {
    try {
      console.log(`${name}: ${await install()}`)
    } catch (error) {
      console.error(`${name}: NOT INSTALLED: ${(error as Error).message}`)
      if (process.env['CI'] === 'true') process.exitCode = 1
    }
  }
}

if (import.meta.main) await main()
