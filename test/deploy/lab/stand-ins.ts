// Images that stand for apache/kafka and mongo in compose.yaml, made of the test servers' jars and mongod and of this
// machine's Java and libraries, on the same base as ours: so this machine is a Debian of the base's release, or not
// much newer. They have what the compose file uses of the real ones: users and folders, Kafka's start scripts, the
// entry point, the volumes. They stay in the tests' storage until what they are made of changes.

import { existsSync } from 'node:fs'
import { chmod, chown, copyFile, mkdir, readdir, realpath, rm, writeFile } from 'node:fs/promises'
import { basename, delimiter, dirname, join } from 'node:path'
import { runTool } from '../../servers/run-tool.ts'
import { kafkaDirectory, mongodDirectory } from '../../servers/server-cache.ts'
import { KAFKA_RELEASES, type KafkaLine, MONGOD_RELEASE } from '../../servers/versions.ts'
import { buildah, hasImage } from './containers.ts'
import { BASE_IMAGE } from './install.ts'

/** Counts up when what is put into the images changes here. */
const EDITION = 3
const KAFKA_USER = 1000
const MONGO_USER = 999

/** Java beside the jars, and two of the scripts in bin/, whose options and variables are Kafka's. */
const LOGGING: Readonly<Record<KafkaLine, string>> = {
  '3.9': '-Dlog4j.configuration=file:/opt/kafka/config/tools-log4j.properties',
  '4.1': '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
}
const runClass = (line: KafkaLine) => `#!/bin/bash
exec /opt/java/bin/java \${KAFKA_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC ${LOGGING[line]} -cp '/opt/kafka/libs/*' "$@"
`
const STORAGE = '#!/bin/bash\nexec "$(dirname "$0")/kafka-run-class.sh" kafka.tools.StorageTool "$@"\n'
const LOG4J = `log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%p %m (%c)%n
`

/** Name of an image with this Kafka; made where it is missing, in some ten seconds. */
export async function kafkaStandIn(line: KafkaLine): Promise<string> {
  const image = `localhost/pertoken-test-kafka:${KAFKA_RELEASES[line].version}-${EDITION}`
  if (await hasImage(image)) return image
  return commit({ image, from: await javaImage(), user: `${KAFKA_USER}:${KAFKA_USER}` }, async (root) => {
    const kafka = join(root, 'opt/kafka')
    for (const folder of ['bin', 'config', 'libs']) await mkdir(join(kafka, folder), { recursive: true })
    for (const file of (await readdir(kafkaDirectory(line))).filter((name) => name.endsWith('.jar')))
      await copyFile(join(kafkaDirectory(line), file), join(kafka, 'libs', file))
    await writeScript(join(kafka, 'bin/kafka-run-class.sh'), runClass(line))
    await writeScript(join(kafka, 'bin/kafka-storage.sh'), STORAGE)
    await writeFile(join(kafka, 'config/tools-log4j.properties'), LOG4J)
    for (const folder of ['var/lib/kafka/data', 'etc/kafka/secrets', 'mnt/shared/config']) {
      await mkdir(join(root, folder), { recursive: true })
      await chown(join(root, folder), KAFKA_USER, KAFKA_USER)
    }
  })
}

/** Name of an image with the tests' mongod and the few libraries that it needs. */
export async function mongoStandIn(): Promise<string> {
  const image = `localhost/pertoken-test-mongo:${MONGOD_RELEASE.version}-${EDITION}`
  if (await hasImage(image)) return image
  return commit({ image, from: BASE_IMAGE, entrypoint: 'docker-entrypoint.sh' }, async (root) => {
    const mongod = join(mongodDirectory(), 'mongod')
    await copyFile(mongod, join(root, 'usr/bin/mongod'))
    await mkdir(join(root, 'opt/lib'))
    // A line of ldd: name => path (address)
    for (const [, path] of (await runTool('ldd', [mongod])).matchAll(/=> (\/\S+) \(/g)) {
      await copyFile(path!, join(root, 'opt/lib', basename(path!)))
    }
    const entrypoint = '#!/bin/bash\nexport LD_LIBRARY_PATH=/opt/lib\nexec "$@"\n'
    await writeScript(join(root, 'usr/local/bin/docker-entrypoint.sh'), entrypoint)
    for (const folder of ['data/db', 'data/configdb']) {
      await mkdir(join(root, folder), { recursive: true })
      await chown(join(root, folder), MONGO_USER, MONGO_USER)
    }
  })
}

/** What both Kafkas run on. */
async function javaImage(): Promise<string> {
  const image = `localhost/pertoken-test-java:${EDITION}`
  if (await hasImage(image)) return image
  return commit({ image, from: BASE_IMAGE }, (root) => copyJava(join(root, 'opt/java')))
}

type Made = { image: string; from: string; user?: string; entrypoint?: string }

/** An image with what `fill` puts below the root directory of another. */
async function commit(
  { image, from, user = '', entrypoint }: Made,
  fill: (root: string) => Promise<void>,
): Promise<string> {
  const container = (await buildah('from', '--quiet', from)).trim()
  try {
    await fill((await buildah('mount', container)).trim())
    await buildah('umount', container)
    const entry = entrypoint === undefined ? [] : ['--entrypoint', JSON.stringify([entrypoint])]
    await buildah('config', '--user', user, ...entry, container)
    await buildah('commit', '--quiet', container, image)
    return image
  } finally {
    await buildah('rm', container)
  }
}

/** This machine's Java; links that lead out of its folder are followed, modules for building are left. */
async function copyJava(target: string): Promise<void> {
  const places = (process.env['PATH'] ?? '').split(delimiter)
  const program = places.map((place) => join(place, 'java')).find((path) => existsSync(path))
  if (program === undefined) throw new Error('Cannot make the image of Kafka: no java on the PATH')
  const home = dirname(dirname(await realpath(program)))
  await mkdir(target, { recursive: true })
  const archive = join(target, 'java.tar')
  const unneeded = ['jmods', 'man', 'include', 'docs', 'legal', 'src.zip'].map((name) => `--exclude=${name}`)
  await runTool('tar', ['-C', home, '--dereference', '--hard-dereference', ...unneeded, '-cf', archive, '.'])
  await runTool('tar', ['-C', target, '-xf', archive])
  await rm(archive)
}

async function writeScript(path: string, text: string): Promise<void> {
  await writeFile(path, text)
  await chmod(path, 0o755)
}
