// The image, built from this working tree by buildah and run by podman as its users do: small, without anything of
// development, read-only, as 10001, on one processor and 1 GB, against a real Kafka and a real MongoDB.

import assert from 'node:assert/strict'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { before, type TestContext, test } from 'node:test'
import type { Health } from '../../src/processor/ingest/health.ts'
import { until } from '../flows/harness.ts'
import { makeAuthority } from '../servers/certificates.ts'
import { freePort } from '../servers/managed-server.ts'
import { runTool } from '../servers/run-tool.ts'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import {
  buildah,
  buildPertoken,
  containerName,
  NPMRC_CANARY,
  PERTOKEN_IMAGE,
  podman,
  ROOT,
  skipWithoutContainers,
} from './lab/containers.ts'
import { BASE_IMAGE } from './lab/install.ts'

const MAX_BYTES_ON_TOP = 110e6
const RATE = 5_000
const LOAD_SECONDS = 8
/** What may wait when the last event was published: two seconds' worth. */
const MAX_BACKLOG = 2 * RATE

const noContainers = await skipWithoutContainers()
const kafka = noContainers === false ? await kafkaForTests() : { skip: noContainers, bootstrap: '' }
const mongo = noContainers === false ? await mongoForTests() : { skip: noContainers, url: '' }
const skip = noContainers || kafka.skip || mongo.skip

before(async () => {
  if (noContainers === false) await buildPertoken()
})

type Package = { name?: string; version?: string; dev?: boolean; optional?: boolean; optionalDependencies?: object }
type Lock = { packages: Record<string, Package> }
type Inspected = {
  Size: number
  Config: {
    User: string
    StopSignal: string
    Entrypoint: string[]
    Cmd: string[]
    Labels: Record<string, string>
    Volumes?: object
  }
  Healthcheck: { Test: string[] }
}

async function inspect(image: string): Promise<Inspected> {
  return (JSON.parse(await podman('image', 'inspect', image)) as Inspected[])[0]!
}

test('the image is small, and says how it is run', { skip: noContainers }, async (t) => {
  const { Size, Config, Healthcheck } = await inspect(PERTOKEN_IMAGE)
  const onTop = Size - (await inspect(BASE_IMAGE)).Size
  t.diagnostic(`${(onTop / 1e6).toFixed(1)} MB on top of the base`)
  assert.ok(onTop > 0 && onTop <= MAX_BYTES_ON_TOP, `${onTop} bytes on top of the base`)
  assert.equal(Config.User, '10001:10001')
  assert.equal(Config.StopSignal, 'SIGTERM')
  assert.deepEqual([...Config.Entrypoint, ...Config.Cmd], ['node', '/app/bin/pertoken.js', 'processor'])
  assert.equal(Config.Volumes, undefined)
  assert.deepEqual(Healthcheck.Test, ['CMD', 'node', '/app/healthcheck.js'])
  assert.equal(Config.Labels['org.opencontainers.image.title'], 'pertoken')
  assert.equal(Config.Labels['org.opencontainers.image.licenses'], 'Apache-2.0')
})

test('its labels say which version and commit it was made from', { skip: noContainers }, async (t) => {
  // The Dockerfile's last lines alone: buildah takes a label from its cache even where a build argument has changed.
  const lines = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
  const context = mkdtempSync(join(tmpdir(), 'pertoken-labels-'))
  t.after(() => rmSync(context, { recursive: true }))
  writeFileSync(join(context, 'Containerfile'), `FROM scratch\n${lines.slice(lines.indexOf('ARG VERSION'))}`)
  const image = `localhost/${containerName('labels')}`
  t.after(() => podman('image', 'rm', '--force', image))
  await buildah('bud', '--build-arg', 'VERSION=1.2.3', '--build-arg', 'REVISION=abc', '--tag', image, context)
  const { Labels } = (await inspect(image)).Config
  const label = (name: string) => Labels[`org.opencontainers.image.${name}`]
  assert.deepEqual(['version', 'revision'].map(label), ['1.2.3', 'abc'])
})

test('the image holds what runs, and no dev dependency, no test, no source, no secret', {
  skip: noContainers,
}, async (t) => {
  const root = (await podman('image', 'mount', PERTOKEN_IMAGE)).trim()
  t.after(() => podman('image', 'unmount', PERTOKEN_IMAGE))
  const app = join(root, 'app')
  assert.deepEqual(readdirSync(app).sort(), [
    ...['LICENSE', 'bin', 'dist', 'examples', 'healthcheck.js', 'node_modules', 'package.json', 'schemas'],
  ])
  const files = readdirSync(app, { recursive: true, encoding: 'utf8' })
  const ours = files.filter((path) => !path.startsWith('node_modules'))
  const odd = ours.filter((path) => /\.ts$|\.test\.|\.env|\.npmrc|\.pem$|\.map$/.test(path))
  assert.deepEqual(odd, [])

  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lock
  const isInstalled = (path: string) => files.includes(join(path, 'package.json'))
  const locked = Object.entries(lock.packages).filter(([path]) => path !== '')
  const dev = locked.filter(([path, { dev }]) => dev === true && isInstalled(path))
  assert.deepEqual(dev, [])
  const missing = locked.filter(([path, { dev, optional }]) => !dev && !optional && !isInstalled(path))
  assert.deepEqual(missing, [])
  const native = readdirSync(join(app, 'node_modules/@koromix'))
  assert.deepEqual(native, [`koffi-linux-${process.arch}`])

  // With it every package manager inside the layers, and all that the builder wrote down.
  const found = await runTool('grep', [
    '-rlF',
    NPMRC_CANARY,
    ...['app', 'data', 'root', 'tmp', 'run'].map((path) => join(root, path)),
  ]).catch(() => 'nothing')
  assert.equal(found, 'nothing')
  const written =
    (await podman('image', 'inspect', PERTOKEN_IMAGE)) + (await podman('history', '--no-trunc', PERTOKEN_IMAGE))
  assert.ok(!written.includes(NPMRC_CANARY) && written.includes('npm ci') === false)
})

test('the builder is handed nothing but what the image is made from', { skip: noContainers }, async (t) => {
  const context = mkdtempSync(join(tmpdir(), 'pertoken-context-'))
  t.after(() => rmSync(context, { recursive: true }))
  const own = ['package.json', 'package-lock.json', 'tsconfig.json', 'LICENSE']
  for (const path of ['.dockerignore', ...own, 'bin', 'docs/schemas', 'examples'])
    cpSync(join(ROOT, path), join(context, path), { recursive: true })
  const planted = [
    '.env',
    '.npmrc',
    'examples/.env',
    'docs/schemas/.env',
    'docs/adr/x.md',
    'bin/key.pem',
    'data/store.sqlite',
    'test/a.test.ts',
    '.git/config',
    'dist/x.js',
  ]
  for (const path of [...planted, 'src/kept.ts']) {
    mkdirSync(join(context, path, '..'), { recursive: true })
    writeFileSync(join(context, path), 'x')
  }
  writeFileSync(join(context, 'Containerfile'), 'FROM scratch\nCOPY . /\n')
  const image = `localhost/${containerName('context')}`
  await buildah('bud', '--isolation', 'chroot', '--file', join(context, 'Containerfile'), '--tag', image, context)
  t.after(() => podman('image', 'rm', '--force', image))
  const root = (await podman('image', 'mount', image)).trim()
  const handed = readdirSync(root, { recursive: true, encoding: 'utf8' })
  await podman('image', 'unmount', image)
  assert.deepEqual(
    handed.filter((path) =>
      planted.some(
        (one) =>
          one === path || (one.startsWith(`${path}/`) && !['docs', 'docs/schemas', 'examples', 'bin'].includes(path)),
      ),
    ),
    [],
  )
  for (const path of [...own, 'src/kept.ts', 'bin/pertoken.js']) assert.ok(handed.includes(path), path)
})

test('for arm64 it takes the native code of arm64, without running anything of it', {
  skip: noContainers,
}, async (t) => {
  // An image that says arm64, as the one of the registry would; only its label is looked at.
  const base = `localhost/${containerName('arm')}`
  const container = (await buildah('from', '--quiet', BASE_IMAGE)).trim()
  await buildah('config', '--arch', 'arm64', container)
  await buildah('commit', '--quiet', '--rm', container, base)
  const image = `localhost/${containerName('arm')}`
  const words = ['--platform', 'linux/arm64', '--target', 'dependencies', '--build-arg', `BASE=${base}`]
  await buildPertoken({ image, context: nativePackagesOnly(t), words })
  t.after(() => podman('image', 'rm', '--force', image, base))
  const root = (await podman('image', 'mount', image)).trim()
  const native = readdirSync(join(root, 'app/node_modules/@koromix'))
  await podman('image', 'unmount', image)
  assert.deepEqual(native, ['koffi-linux-arm64'])
})

/**
 * A folder with package.json and lock file that name, of all dependencies, those with native code: installed in no
 * time.
 */
function nativePackagesOnly(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'pertoken-native-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lock
  const { name, version, optionalDependencies } = lock.packages['']!
  const manifest = { name, version, optionalDependencies }
  const native = Object.entries(lock.packages).filter(([path]) => /^node_modules\/(koffi$|@koromix\/)/.test(path))
  const packages = { '': manifest, ...Object.fromEntries(native) }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest))
  writeFileSync(join(folder, 'package-lock.json'), JSON.stringify({ ...lock, packages }))
  return folder
}

const HARDENED = ['--cap-drop', 'ALL', '--security-opt', 'no-new-privileges', '--read-only', '--read-only-tmpfs=false']

type Env = Record<string, string>

/** Runs the image in this machine's network until the test ends; gives the container's name. */
async function start(
  t: TestContext,
  prefix: string,
  env: Env,
  flags: readonly string[],
  ...words: readonly string[]
): Promise<string> {
  const name = containerName(prefix)
  t.after(() => podman('rm', '--force', '--time', '0', name))
  const variables = Object.entries({ LOG_LEVEL: 'warn', ...env }).map(([key, value]) => `--env=${key}=${value}`)
  await podman('run', '--detach', '--name', name, '--network', 'host', ...variables, ...flags, PERTOKEN_IMAGE, ...words)
  return name
}

/** Settings of one test: topics, group, database and port of its own. */
async function settings(): Promise<Env> {
  return {
    KAFKA_BOOTSTRAP: kafka.bootstrap,
    MONGO_URL: withDatabase(mongo.url, uniqueName('image')),
    TOPIC_METRIC: uniqueName('gpu'),
    TOPIC_TOKEN: uniqueName('token'),
    TOPIC_DEAD: uniqueName('dead'),
    KAFKA_GROUP: uniqueName('g'),
    GPU_SEED: '/app/examples/gpu_seed.json',
    HOST: '127.0.0.1',
    PORT: String(await freePort()),
  }
}

async function health(env: Env): Promise<Health> {
  const response = await fetch(`http://127.0.0.1:${env['PORT']}/health`, { signal: AbortSignal.timeout(5_000) })
  return (await response.json()) as Health
}

/** What the image's own health check says. */
async function isHealthy(container: string): Promise<boolean> {
  return podman('healthcheck', 'run', container).then(
    () => true,
    () => false,
  )
}

async function state(container: string) {
  const [{ State }] = JSON.parse(await podman('inspect', container)) as [
    { State: { Running: boolean; ExitCode: number; OOMKilled: boolean } },
  ]
  return State
}

/** SIGTERM; after 20 s podman would kill it. */
async function stop(container: string) {
  const startedMs = performance.now()
  await podman('stop', '--time', '20', container)
  return { seconds: (performance.now() - startedMs) / 1000, ...(await state(container)) }
}

/** Whether this container has written to its root; the places that podman itself mounts things on do not count. */
async function written(container: string): Promise<string[]> {
  const mounts = /^[CA] \/(dev|proc|sys|etc|run|etc\/(hosts|hostname|resolv\.conf|mtab)|run\/\.containerenv)$/
  return (await podman('diff', container)).split('\n').filter((line) => line !== '' && !mounts.test(line))
}

test('as 10001, read-only, on one processor and 1 GB it keeps up with 5,000 events a second, and drains on SIGTERM', {
  skip,
}, async (t) => {
  const env = await settings()
  const limits = ['--cpus', '1', '--memory', '1g', '--pids-limit', '100']
  const processor = await start(t, 'processor', env, [...HARDENED, ...limits])
  await until('the processor is well', async () => (await health(env)).status === 'ok')
  assert.ok(await isHealthy(processor), 'its health check says so')
  assert.match(await podman('exec', processor, 'id'), /^uid=10001\S* gid=10001/m)

  const pairs = (RATE * LOAD_SECONDS) / 2
  const producer = containerName('producer')
  const given = Object.entries(env).map(([key, value]) => `--env=${key}=${value}`)
  const run = ['run', '--rm', '--name', producer, '--network', 'host', ...given, ...HARDENED, PERTOKEN_IMAGE]
  const produced = await podman(...run, 'produce', '--batch', String(pairs), '--rate', String(RATE))
  const { stored } = (await health(env)).outcomes
  assert.match(produced, new RegExp(`Published ${pairs} pairs`))
  t.diagnostic(`${2 * pairs - stored} of ${2 * pairs} events waited when the last one was published`)
  assert.ok(2 * pairs - stored <= MAX_BACKLOG, `${stored} of ${2 * pairs} events were stored in time`)
  await until('all is stored', async () => (await health(env)).outcomes.stored === 2 * pairs)

  const endless = await start(t, 'endless', env, HARDENED, 'produce', '--batch', '0', '--rate', '1000')
  await until('more comes in', async () => (await health(env)).outcomes.stored > 2 * pairs)
  assert.ok(await isHealthy(endless), 'a producer is well while it runs')
  const ended = await stop(processor)
  t.diagnostic(`Stopped in ${ended.seconds.toFixed(1)} s`)
  assert.deepEqual([ended.ExitCode, ended.OOMKilled, ended.Running], [0, false, false])
  assert.ok(ended.seconds <= 10, `stopped in ${ended.seconds} s`)
  assert.equal((await stop(endless)).ExitCode, 0)
})

test('where it could write it writes no file either', { skip }, async (t) => {
  const env = await settings()
  const processor = await start(t, 'writable', env, [])
  await until('the processor is well', async () => (await health(env)).status === 'ok')
  const producer = await start(t, 'writable', env, [], 'produce', '--batch', '50', '--interval', '0')
  await until('all is stored', async () => (await health(env)).outcomes.stored === 100)
  assert.equal((await stop(processor)).ExitCode, 0)
  assert.deepEqual([await written(processor), await written(producer)], [[], []])
})

test('the health check is 1 where the processor is not well, and asks HTTPS where it is spoken', {
  skip,
}, async (t) => {
  const env = await settings()
  // A certificate for another name, as where a machine has a public one.
  const folder = mkdtempSync(join(tmpdir(), 'pertoken-certificates-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const certificate = await (await makeAuthority(folder, 'ca')).sign('server', { hosts: ['pertoken.example'] })
  chmodSync(certificate.key, 0o644)
  chmodSync(folder, 0o755)
  const tls = { HTTP_TLS_CERT: certificate.cert, HTTP_TLS_KEY: certificate.key, PORT: String(await freePort()) }
  const [lost, secured] = await Promise.all([
    start(t, 'lost', { ...env, KAFKA_BOOTSTRAP: '127.0.0.1:1' }, HARDENED),
    start(t, 'tls', { ...env, ...tls }, [...HARDENED, '--volume', `${folder}:${folder}:ro`]),
  ])
  await until('the processor says what is wrong', async () => (await health(env)).status !== 'ok')
  assert.equal(await isHealthy(lost), false)
  await until('the processor with a certificate is well', () => isHealthy(secured), 30)
})

test('the same image is the agent, with its spool on a volume, and the health check asks it at its port', {
  skip,
}, async (t) => {
  const env = { ...(await settings()), GPU_METRICS_SOURCE: 'seed', AGENT_PORT: String(await freePort()) }
  const volume = containerName('spool')
  const agent = await start(t, 'agent', env, [...HARDENED, '--volume', `${volume}:/data`], 'agent')
  t.after(() => podman('volume', 'rm', '--force', volume))
  await until('the agent is well', () => isHealthy(agent), 30)
  assert.equal((await stop(agent)).ExitCode, 0)
})
