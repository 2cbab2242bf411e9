// Fetches the peer of `make bench` into the cache: Kafka Connect with MongoDB's own sink, as jars through mvn. They are
// pinned like the tests' servers (test/servers/versions.ts): versions here, SHA-256 of the main jars here, that of the
// rest in the manifest that the cache keeps. Not a part of `make test`, which has no use for it.
//
//   node test/bench/peers/install.ts

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { installInto, pomFor, withPackages } from '../../servers/install.ts'
import { runTool } from '../../servers/run-tool.ts'
import { cacheDirectory, verifyOnce } from '../../servers/server-cache.ts'

export const INSTALL_COMMAND = 'make bench-peers'

const PACKAGES = ['openjdk-17-jdk-headless', 'maven']
const RELEASE = {
  name: 'kafka-connect-3.9.1-mongodb-2.0.1',
  // Jackson first: Maven takes the version that it meets first, and the sink's own would be too old for Kafka Connect.
  coordinates: [
    'com.fasterxml.jackson.core:jackson-core:2.16.2',
    'com.fasterxml.jackson.core:jackson-databind:2.16.2',
    'com.fasterxml.jackson.core:jackson-annotations:2.16.2',
    'org.apache.kafka:connect-runtime:3.9.1',
    'org.apache.kafka:connect-json:3.9.1',
    'org.mongodb.kafka:mongo-kafka-connect:2.0.1',
    'org.apache.avro:avro:1.11.4',
    'org.slf4j:slf4j-reload4j:1.7.36',
  ],
  sha256: {
    'avro-1.11.4.jar': 'eeba11b77070b9aa6337d886fdf778f6695f6c4c3dcfd2a02389925c885079fa',
    'bson-4.7.2.jar': '8b38221a9351a0a4086f08d5012dac86515a9450325ca5b82565b190e7da33c7',
    'connect-api-3.9.1.jar': 'c26bb05b8a83654d6dca13c42511d1cd1ded3d0778447fa2f46b47e075e511d0',
    'connect-json-3.9.1.jar': '8b0baff8583d8179a622aa7ad2b5f5e2701917eefe6bd7355033352b97e3e315',
    'connect-runtime-3.9.1.jar': 'cbd8062077b06fd4978ad5b5a963ec3f95e156e7f84611110466381ec2d4f45f',
    'jackson-core-2.16.2.jar': '4f43e2f1430b2d2413e8e5a3d79138e57e891d6a961b18c28ac90859639d8664',
    'jackson-databind-2.16.2.jar': '53b6025d98c357068296e4b134242443a248c2c582800879f1c4ea93b54bafa6',
    'kafka-clients-3.9.1.jar': '7568b998572d256f0b7bc0afdc1b7a2588b8b08415c62ce314c864a6851ae9d9',
    'mongo-kafka-connect-2.0.1.jar': '558649e45c399844916f5a915959657960fc4b940344bc813ceb6b42f93d174f',
    'mongodb-driver-core-4.7.2.jar': 'aff7529f68e0da68358db0ea58707ba2cd92cdbaaa6c60cd55583ad60160f626',
    'mongodb-driver-sync-4.7.2.jar': '12a3426f71b84ad52282bf08adb8ea04b3ba0fefc0d9feddf14e62071cab437d',
    'slf4j-reload4j-1.7.36.jar': 'ae6fdd5c9547896114d5ec7fa7503733b7d2890573d3886fb548b3119c4d3f67',
  },
} as const

export function kafkaConnectDirectory(): string {
  return join(cacheDirectory(), RELEASE.name)
}

/** Rejects with NotInstalled unless the jars lie in the cache as they were installed. */
export async function requireKafkaConnect(): Promise<void> {
  await verifyOnce(kafkaConnectDirectory(), RELEASE.sha256)
}

async function installKafkaConnect(): Promise<string> {
  return installInto(kafkaConnectDirectory(), RELEASE.sha256, async (work, target) => {
    await writeFile(join(work, 'pom.xml'), pomFor(RELEASE.coordinates))
    const goal = ['-q', '-B', 'dependency:copy-dependencies', `-DoutputDirectory=${target}`]
    await withPackages(PACKAGES, () => runTool('mvn', goal, { cwd: work }))
  })
}

if (import.meta.main) console.log(`${RELEASE.name}: ${await installKafkaConnect()}`)
