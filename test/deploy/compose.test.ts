// compose.yaml and the Makefile's targets around it: the file as docker-compose reads it, and the stack as
// podman-compose runs it, with images that stand for Kafka's and MongoDB's, once with KRaft and once with ZooKeeper.
// What a target did is looked at afterwards: podman-compose 1.0 exits 0 whatever happened.

import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { parse } from 'yaml'
import type { Health } from '../../src/processor/ingest/health.ts'
import { pertoken, until } from '../flows/harness.ts'
import { freePort } from '../servers/managed-server.ts'
import { runTool } from '../servers/run-tool.ts'
import { skipWithoutKafka, skipWithoutMongod } from '../servers/servers-for-tests.ts'
import { buildPertoken, containerEnv, containerName, podman, ROOT, skipWithoutContainers } from './lab/containers.ts'
import { BASE_IMAGE } from './lab/install.ts'
import { kafkaStandIn, mongoStandIn } from './lab/stand-ins.ts'

const noContainers = (await skipWithoutContainers()) || skipWithDotenv()
const skip =
  noContainers || (await skipWithoutKafka('3.9')) || (await skipWithoutKafka('4.1')) || (await skipWithoutMongod())

/** compose reads the checkout's `.env`, podman-compose even before the environment: the stack would be another one. */
function skipWithDotenv(): string | false {
  if (!existsSync(join(ROOT, '.env'))) return false
  const reason = 'this checkout has a .env, which compose would read: move it away for the while'
  if (process.env['CI'] === 'true') throw new Error(`Cannot test compose.yaml: ${reason}`)
  console.error(`SKIPPED: ${reason}`)
  return reason
}

type Service = {
  image: string
  build?: object
  cap_drop?: string[]
  security_opt?: string[]
  read_only?: boolean
  mem_limit?: string
  pids_limit?: number
  ports?: string[]
  healthcheck?: object
  depends_on?: Record<string, { condition: string }>
}

async function config(env: Record<string, string>): Promise<{ services: Record<string, Service>; volumes: object }> {
  const text = await runTool(
    'docker-compose',
    ['--project-directory', ROOT, '-f', join(ROOT, 'compose.yaml'), 'config'],
    { env },
  )
  return parse(text) as { services: Record<string, Service>; volumes: object }
}

test('compose.yaml is valid, every service is hemmed in, and the order of the start is that of health', {
  skip: noContainers,
}, async () => {
  const plain = await config({ COMPOSE_PROFILES: '' })
  const { services, volumes } = await config({ COMPOSE_PROFILES: 'zookeeper' })
  assert.equal(plain.services['kafka']!.image, 'apache/kafka:4.1.0')
  assert.equal(services['mongodb']!.image, 'mongo:7')
  assert.deepEqual(Object.keys(services).sort(), ['kafka', 'mongodb', 'processor', 'producer', 'zookeeper'])
  assert.deepEqual(Object.keys(volumes).sort(), ['kafka-data', 'mongodb-data', 'zookeeper-data'])
  for (const [name, service] of Object.entries(services)) {
    assert.deepEqual(service.cap_drop, ['ALL'], name)
    assert.deepEqual(service.security_opt, ['no-new-privileges'], name)
    assert.equal(service.read_only, true, name)
    assert.ok(service.mem_limit !== undefined && service.pids_limit !== undefined, name)
    for (const port of service.ports ?? []) assert.match(port, /^127\.0\.0\.1:/, name)
    // Ours is in the image, which image.test.ts looks at.
    assert.ok(service.healthcheck !== undefined || service.build !== undefined, name)
    for (const { condition } of Object.values(service.depends_on ?? {}))
      assert.equal(condition, 'service_healthy', name)
  }
  assert.deepEqual(Object.keys(services['processor']!.depends_on!).sort(), ['kafka', 'mongodb'])
})

/** A stack of its own: name, ports, and make with podman-compose; removed with all that it stored at the test's end. */
async function stack(t: TestContext, env: Record<string, string>) {
  const project = containerName('compose')
  const ports = { PORT: await freePort(), KAFKA_PORT: await freePort(), MONGO_PORT: await freePort() }
  const variables = {
    ...containerEnv(),
    COMPOSE: `podman-compose -p ${project}`,
    BASE_IMAGE,
    MONGO_IMAGE: await mongoStandIn(),
    ...Object.fromEntries(Object.entries(ports).map(([name, port]) => [name, String(port)])),
    ...env,
    // This test may itself be run by make.
    MAKEFLAGS: '',
    MAKELEVEL: '',
  }
  const container = (service: string) => `${project}_${service}_1`
  t.after(async () => {
    const names = (await podman('ps', '--all', '--format', '{{.Names}}')).split('\n')
    const ours = names.filter((name) => name.startsWith(`${project}_`))
    if (ours.length > 0) await podman('rm', '--force', '--time', '0', ...ours)
    await podman('network', 'rm', '--force', `${project}_default`)
    const volumes = ['kafka-data', 'mongodb-data', 'zookeeper-data'].map((name) => `${project}_${name}`)
    await podman('volume', 'rm', '--force', ...volumes)
  })
  return {
    project,
    ports,
    container,
    make: (...words: readonly string[]) =>
      runTool('make', ['-C', ROOT, '--no-print-directory', ...words], { env: variables }),
    isHealthy: (service: string) =>
      podman('healthcheck', 'run', container(service)).then(
        () => true,
        () => false,
      ),
    async json<T>(path: string): Promise<T> {
      const response = await fetch(`http://127.0.0.1:${ports.PORT}${path}`, { signal: AbortSignal.timeout(5_000) })
      return (await response.json()) as T
    },
  }
}

type Inspected = {
  State: { Status: string; StartedAt: string; Pid: number }
  HostConfig: { ReadonlyRootfs: boolean; Memory: number; SecurityOpt: string[] }
  EffectiveCaps: string[] | null
  NetworkSettings: { Ports: Record<string, { HostIp: string }[] | null> }
}

async function inspect(container: string): Promise<Inspected> {
  return (JSON.parse(await podman('inspect', container)) as Inspected[])[0]!
}

test('make build, up, wait, health, curl, ps, logs, doctor, restart and down work as they say', { skip }, async (t) => {
  const { make, ports, container, isHealthy, json, project } = await stack(t, {
    KAFKA_IMAGE: await kafkaStandIn('4.1'),
  })
  // Its layers come from here: podman build knows nothing of how this machine reaches npm's registry.
  await buildPertoken()
  const commit = (await runTool('git', ['-C', ROOT, 'rev-parse', 'HEAD'])).trim()
  const built = await make('build')
  assert.ok(built.includes(`--build-arg REVISION=${commit}`) && /--build-arg VERSION=\d+\.\d+\.\d+ /.test(built), built)
  assert.match(built, /Successfully tagged localhost\/pertoken:latest/)

  await make('up')
  assert.match(await make('wait', 'WAIT=90'), /is well/)
  const services = ['kafka', 'mongodb', 'processor', 'producer']
  for (const service of services) {
    const { State, HostConfig, EffectiveCaps, NetworkSettings } = await inspect(container(service))
    assert.equal(State.Status, 'running', service)
    assert.ok(await isHealthy(service), `${service} is healthy`)
    assert.ok(HostConfig.ReadonlyRootfs && HostConfig.Memory > 0, service)
    assert.deepEqual([HostConfig.SecurityOpt, EffectiveCaps ?? []], [['no-new-privileges'], []], service)
    const published = Object.values(NetworkSettings.Ports).flatMap((list) => list ?? [])
    assert.deepEqual(
      published.filter(({ HostIp }) => HostIp !== '127.0.0.1'),
      [],
      service,
    )
  }

  assert.match(await make('health'), /"status":"ok"/)
  await until(
    'the producer’s first events are stored',
    async () => (await json<Health>('/health')).outcomes.stored >= 2,
  )
  assert.match(await make('curl'), /"gpu_index":[\s\S]*"models":/)
  const listed = await make('ps')
  for (const service of services) assert.ok(listed.includes(container(service)), service)
  assert.match(await make('logs'), /look at http/)
  assert.match(await make('doctor'), /ok +log[\s\S]*ok +store[\s\S]*ok +http/)

  // From this machine, by the address that Kafka advertises to it.
  const before = (await json<Health>('/health')).outcomes.stored
  const env = { KAFKA_BOOTSTRAP: `localhost:${ports.KAFKA_PORT}`, GPU_SEED: join(ROOT, 'examples/gpu_seed.json') }
  const { status, stderr } = pertoken(['produce', '--batch', '50', '--interval', '0', '--event-hosts', '1'], env)
  assert.equal(status, 0, stderr)
  assert.ok((await json<Health>('/health')).outcomes.stored >= before)

  const { State } = await inspect(container('processor'))
  await make('restart', 'S=processor')
  assert.notEqual((await inspect(container('processor'))).State.StartedAt, State.StartedAt)
  await make('wait', 'WAIT=60')

  await make('down')
  assert.equal(
    (await podman('ps', '--all', '--quiet', '--filter', `label=io.podman.compose.project=${project}`)).trim(),
    '',
  )
  assert.ok((await podman('volume', 'ls', '--quiet')).includes(`${project}_mongodb-data`), 'data stay')
})

test('with the profile it is Kafka 3.9 with ZooKeeper, which no other machine reaches', { skip }, async (t) => {
  const env = { KAFKA_IMAGE: await kafkaStandIn('3.9'), COMPOSE_PROFILES: 'zookeeper' }
  const { make, container, isHealthy } = await stack(t, env)
  await make('up')
  await make('wait', 'WAIT=90')
  assert.ok((await isHealthy('zookeeper')) && (await isHealthy('kafka')))
  assert.deepEqual((await inspect(container('zookeeper'))).NetworkSettings.Ports, {})
  const brokers = await podman('exec', container('kafka'), 'ls', '/var/lib/kafka/data')
  assert.match(brokers, /^zookeeper$/m)
})

test('without a stack, make doctor looks from this machine, and make wait and health say that nothing is there', {
  skip: noContainers,
}, async (t) => {
  const { make } = await stack(t, {})
  await assert.rejects(make('wait', 'WAIT=1'), /Not well after 1 s: http:\/\/localhost:\d+\/health/)
  await assert.rejects(make('health'), /Failed to connect/)
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-doctor-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  await assert.rejects(make('doctor', `DATA_DIR=${directory}`), /WRONG http/)
})
