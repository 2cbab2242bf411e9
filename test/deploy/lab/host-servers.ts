// What runs on the machines of hosts.test.ts, started as deploy/ starts it: Kafka with the settings of
// deploy/vm1-kafka, a mongod that asks for logins, the processor by deploy/vm3-processor's own targets and compose
// file, two producers.

import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runTool } from '../../servers/run-tool.ts'
import { kafkaDirectory, mongodDirectory } from '../../servers/server-cache.ts'
import { removeAtEnd, removedAlready } from '../../servers/server-process.ts'
import { containerEnv, containerName, podman, ROOT } from './containers.ts'
import type { Host } from './hosts.ts'
import { podmanCompose } from './machine-tools.ts'

export const NODE = process.execPath
const PERTOKEN = [NODE, join(ROOT, 'bin/pertoken.js')]

export type KafkaMode = 'zookeeper' | 'kraft'

/** By host; the example's, as the files of deploy/ have them. */
export const ADDRESSES: Record<string, [string, string]> = {
  kafka: ['10.0.1.197', 'fd00:1::197'],
  mongodb: ['10.0.1.86', 'fd00:1::86'],
  processor: ['10.0.1.112', 'fd00:1::112'],
  producers: ['10.0.1.140', 'fd00:1::140'],
  admin: ['10.0.1.7', 'fd00:1::7'],
  stranger: ['10.0.1.66', 'fd00:1::66'],
}

const KAFKA = { KAFKA_BOOTSTRAP: `${ADDRESSES['kafka']![0]}:9092`, LOG_LEVEL: 'warn' }

/** Kafka as deploy/vm1-kafka sets it up: its files, with their placeholders filled in. */
export async function startKafka(host: Host, mode: KafkaMode): Promise<void> {
  const values: Record<string, string> = {
    KAFKA_ADDRESS: host.addresses[0],
    KAFKA_PORT: '9092',
    CONTROLLER_PORT: '9093',
    KAFKA_PARTITIONS: '12',
    KAFKA_RETENTION_HOURS: '168',
    RETENTION_BYTES_PER_PARTITION: '67108864',
  }
  const file = (name: string) => readFileSync(join(ROOT, 'deploy/vm1-kafka/config', name), 'utf8')
  const settings = [file(`server.${mode}.properties`), file('server.common.properties')].join('')
  await host.do(['mkdir', '-p', '/etc/kafka', '/var/lib/kafka/log', '/var/lib/zookeeper'])
  await host.do(['tee', '/etc/kafka/server.properties'], {
    input: settings.replaceAll(/@(\w+)@/g, (_, name: string) => values[name]!),
  })
  for (const name of ['zookeeper.properties', 'log4j.properties'])
    await host.do(['tee', `/etc/kafka/${name}`], { input: file(name) })
  const flags = ['-Xmx384m', '-XX:+UseSerialGC', '-XX:-UsePerfData', '-XX:TieredStopAtLevel=1']
  const logging = '-Dlog4j.configuration=file:/etc/kafka/log4j.properties'
  const java = (...words: string[]) => [
    ...['/usr/bin/env', 'java', ...flags, logging, '-cp', join(kafkaDirectory('3.9'), '*')],
    ...words,
  ]
  if (mode === 'zookeeper') {
    await host.start(
      'zookeeper.log',
      java('org.apache.zookeeper.server.quorum.QuorumPeerMain', '/etc/kafka/zookeeper.properties'),
    )
    await answers(host, '127.0.0.1', 2181)
  } else {
    await host.do(
      java('kafka.tools.StorageTool', 'format', '-t', 'pertoken-tests-cluster', '-c', '/etc/kafka/server.properties'),
    )
  }
  await host.start('kafka.log', java('kafka.Kafka', '/etc/kafka/server.properties'))
  await answers(host, host.addresses[0], 9092)
}

const PASSWORDS = { root: 'first-users-password', pertoken: 'the-password-of-pertoken' }

/** A replica set of one that asks for logins, and listens on the machine's address. */
export async function startMongod(host: Host): Promise<void> {
  const data = join(host.directory, 'mongodb')
  await host.do(['sh', '-ec', 'mkdir "$0"; head -c 96 /dev/urandom | base64 -w0 >"$0.key"; chmod 600 "$0.key"', data])
  await host.start('mongod.log', [
    ...[join(mongodDirectory(), 'mongod'), '--dbpath', data, '--bind_ip', `127.0.0.1,${host.addresses[0]}`],
    ...[
      '--auth',
      '--keyFile',
      `${data}.key`,
      '--replSet',
      'pertoken',
      '--oplogSize',
      '64',
      '--nounixsocket',
      '--quiet',
    ],
    ...['--wiredTigerCacheSizeGB', '0.25', '--setParameter', 'diagnosticDataCollectionEnabled=false'],
  ])
  const users = [NODE, join(ROOT, 'test/deploy/lab/first-users.ts'), host.addresses[0]]
  await host.do(users, { input: JSON.stringify(PASSWORDS) })
}

/**
 * The processor as deploy/vm3-processor runs it: its Makefile and compose file, in the host's network; without a
 * container where none can be run. Gives what ends it.
 */
export async function startProcessor(host: Host, hasContainers: boolean): Promise<() => Promise<void>> {
  if (!hasContainers) {
    const MONGO_URL = `mongodb://pertoken@${ADDRESSES['mongodb']![0]}:27017/ca0?replicaSet=pertoken`
    await host.start('processor.log', [...PERTOKEN, 'processor'], {
      env: { ...KAFKA, MONGO_URL, MONGO_PASSWORD: PASSWORDS.pertoken },
    })
    await answers(host, '127.0.0.1', 8080)
    return async () => {}
  }
  const project = containerName('hosts')
  const folder = mkdtempSync(join(tmpdir(), 'pertoken-vm3-'))
  removeAtEnd(folder)
  const end = async () => {
    await podman('rm', '--force', '--time', '0', '--ignore', `${project}_processor_1`)
    rmSync(folder, { recursive: true })
    removedAlready(folder)
  }
  try {
    cpSync(join(ROOT, 'deploy'), folder, { recursive: true, filter: (path) => !/\/(\.env|secrets)$/.test(path) })
    const [command, ...words] = host.inNetwork([
      ...['bash', '-ec', 'printf %s "$PASSWORD" | make -C "$0" set-password "$@"; make -C "$0" up "$@"'],
      ...[join(folder, 'vm3-processor'), `COMPOSE=${await podmanCompose()} -p ${project}`],
    ])
    await runTool(command, words, { env: { ...containerEnv(), PASSWORD: PASSWORDS.pertoken } })
    await answers(host, '127.0.0.1', 8080)
  } catch (error) {
    await end()
    throw error
  }
  return end
}

/** Two producers on one machine, each with a host name of its own. */
export async function startProducers(host: Host): Promise<void> {
  for (const name of ['gpu-1', 'gpu-2']) {
    const named = ['unshare', '--uts', 'sh', '-c', 'hostname "$0"; exec "$@"', name]
    await host.start(`${name}.log`, [...named, ...PERTOKEN, 'produce', '--batch', '0'], {
      env: { ...KAFKA, GPU_SEED: join(ROOT, 'examples/gpu_seed.json') },
    })
  }
}

/** What deploy/vm4-producers calls instead of docker compose: `run … producer-1 WORDS` without a container. */
export async function standInForCompose(host: Host): Promise<void> {
  const path = join(host.directory, 'compose')
  const script = `#!/bin/sh
while [ "$1" != producer-1 ]; do shift; done
shift
exec sudo env "KAFKA_BOOTSTRAP=$KAFKA_BOOTSTRAP" ${PERTOKEN.join(' ')} "$@"
`
  await host.do(['sh', '-ec', 'cat >"$0"; chmod 755 "$0"; echo "COMPOSE=$0" >>/etc/environment', path], {
    input: script,
  })
}

async function answers(host: Host, address: string, port: number): Promise<void> {
  await host.do(['bash', '-c', `until (exec 3<>/dev/tcp/${address}/${port}) 2>/dev/null; do sleep 0.1; done`])
}
