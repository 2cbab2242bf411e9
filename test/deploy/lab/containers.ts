// Containers for tests, without a daemon: podman and buildah with settings and storage of their own, below the cache of
// the test servers, so that nothing of this machine's own images, containers and networks is seen or touched. No image
// can be taken from a registry: what stands for node:26-bookworm-slim is made by install.ts. Needs root. Everything
// that a test makes is named by `containerName`; what a test that was killed left behind goes at the next start.

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { runTool } from '../../servers/run-tool.ts'
import { cacheDirectory, NotInstalled, verifyDirectory } from '../../servers/server-cache.ts'
import { BASE_ARCHIVE, BASE_IMAGE, baseDirectory, CONTAINER_TOOLS, INSTALL_COMMAND } from './install.ts'

export const ROOT = new URL('../../../', import.meta.url).pathname
/** The image of processor, producer and agent; the name that compose.yaml has for it. */
export const PERTOKEN_IMAGE = 'localhost/pertoken:latest'

/** podman's whole world. Short paths for what holds sockets and locks: it may be in memory and goes with a reboot. */
const storage = () => join(cacheDirectory(), 'containers')
const runtime = () =>
  join('/run/pertoken-test', createHash('sha256').update(cacheDirectory()).digest('hex').slice(0, 8))

/**
 * For the options of a test: false, or why it cannot run. Throws with CI=true. Call it once at the top of a test file.
 */
export async function skipWithoutContainers(): Promise<string | false> {
  try {
    await prepare()
    return false
  } catch (error) {
    if (process.env['CI'] === 'true' || !(error instanceof NotInstalled)) throw error
    const reason = `containers cannot be run: ${error.message}`
    console.error(`SKIPPED: ${reason}`)
    return reason
  }
}

/** Environment in which podman, buildah and podman-compose use the tests' settings and storage. */
export function containerEnv(): Record<string, string> {
  return {
    CONTAINERS_CONF: join(storage(), 'containers.conf'),
    CONTAINERS_STORAGE_CONF: join(storage(), 'storage.conf'),
    // Builds with the image format that has health checks.
    BUILDAH_FORMAT: 'docker',
    // Where builds keep what they share from one to the next: npm's downloads.
    TMPDIR: join(storage(), 'tmp'),
  }
}

/**
 * Runs podman to its end and gives what it wrote, standard error too where it says something; throws unless it exits 0.
 */
export function podman(...words: readonly string[]): Promise<string> {
  return runTool('podman', words, { env: containerEnv() })
}

export function buildah(...words: readonly string[]): Promise<string> {
  return runTool('buildah', words, { env: containerEnv() })
}

let count = 0

/** A name for a container, a network or a compose project that tells whose it is; at most 30 characters. */
export function containerName(prefix: string): string {
  return `pt${process.pid}-${prefix.slice(0, 12)}${count++}`
}

/** Whether an image is in the tests' storage. */
export function hasImage(image: string): Promise<boolean> {
  return podman('image', 'exists', image).then(
    () => true,
    () => false,
  )
}

/**
 * Builds the image of this working tree, or takes the layers of the last time where nothing has changed (8 s instead of
 * 30). `words` go to buildah; `context` is what to build instead of the working tree, by the same Dockerfile.
 */
export async function buildPertoken({
  image = PERTOKEN_IMAGE,
  context = ROOT,
  words = [],
}: Build = {}): Promise<string> {
  const secrets = await mkdtemp(join(tmpdir(), 'pertoken-npmrc-'))
  try {
    const npmrc = join(secrets, 'npmrc')
    const { registry, authority } = await npmSettings()
    const lines = [NPMRC_CANARY, `registry=${registry}`, ...(authority === undefined ? [] : [`cafile=${AUTHORITY}`])]
    await writeFile(npmrc, `${lines.join('\n')}\n`)
    const how = ['--isolation', 'chroot', '--layers', '--file', join(ROOT, 'Dockerfile'), '--tag', image]
    const base = ['--build-arg', `BASE=${BASE_IMAGE}`]
    const reach = authority === undefined ? [] : ['--volume', `${authority}:${AUTHORITY}:ro`]
    await buildah('bud', ...how, ...base, '--secret', `id=npmrc,src=${npmrc}`, ...reach, ...words, context)
    return image
  } finally {
    await rm(secrets, { recursive: true, force: true })
  }
}

type Build = { image?: string; context?: string; words?: readonly string[] }

/** A line of the secret that buildPertoken hands to the build: in no layer of the image may it be found. */
export const NPMRC_CANARY = '# pertoken-test-secret-of-the-build'
const AUTHORITY = '/run/test-authority.pem'

/** Where npm installs from here, and the certificate authority that it needs for that, if any. */
async function npmSettings(): Promise<{ registry: string; authority: string | undefined }> {
  const [registry = '', cafile = ''] = (
    await Promise.all(['registry', 'cafile'].map((key) => runTool('npm', ['--loglevel=silent', 'config', 'get', key])))
  ).map((line) => line.trim())
  const authority = existsSync(cafile) ? cafile : process.env['NODE_EXTRA_CA_CERTS']
  return { registry, authority: authority !== undefined && existsSync(authority) ? authority : undefined }
}

async function prepare(): Promise<void> {
  if (process.getuid?.() !== 0) throw new NotInstalled('podman needs root here; run the tests as root')
  const directories = (process.env['PATH'] ?? '').split(delimiter)
  for (const tool of CONTAINER_TOOLS) {
    if (!directories.some((directory) => existsSync(join(directory, tool))))
      throw new NotInstalled(`there is no ${tool}; run ${INSTALL_COMMAND}`)
  }
  await writeSettings()
  await sweep()
  if (await hasImage(BASE_IMAGE)) return
  await verifyDirectory(baseDirectory(), {})
  await podman('import', join(baseDirectory(), BASE_ARCHIVE), BASE_IMAGE)
}

async function writeSettings(): Promise<void> {
  for (const folder of ['networks', 'tmp']) await mkdir(join(storage(), folder), { recursive: true })
  await mkdir(runtime(), { recursive: true })
  const settings = `[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
lock_type="file"
tmp_dir="${runtime()}/libpod"
[network]
network_backend="netavark"
network_config_dir="${storage()}/networks"
[containers]
log_driver="k8s-file"
# Within what containers may have in a container, or in a small machine.
default_ulimits=["nofile=4096:4096","nproc=8192:8192"]
`
  await writeFile(join(storage(), 'containers.conf'), settings)
  const place = `[storage]
driver="overlay"
graphroot="${storage()}/storage"
runroot="${runtime()}/storage"
`
  await writeFile(join(storage(), 'storage.conf'), place)
}

/** Removes what tests that are gone have left, and layers of builds that are a day old. */
async function sweep(): Promise<void> {
  const isLeft = (name: string) => {
    const pid = /^pt(\d+)-/.exec(name)?.[1]
    return pid !== undefined && !existsSync(`/proc/${pid}`)
  }
  for (const [kind, list, remove] of [
    ['container', ['ps', '--all', '--format', '{{.Names}}'], ['rm', '--force', '--time', '0']],
    ['network', ['network', 'ls', '--format', '{{.Name}}'], ['network', 'rm', '--force']],
    ['volume', ['volume', 'ls', '--format', '{{.Name}}'], ['volume', 'rm', '--force']],
  ] as const) {
    const left = (await podman(...list)).split('\n').filter(isLeft)
    if (left.length > 0) console.error(`Removing ${kind}s that earlier tests left: ${left.join(' ')}`)
    if (left.length > 0) await podman(...remove, ...left)
  }
  // It fails where another process builds at the same moment; that one sweeps too.
  await podman('image', 'prune', '--force', '--filter', 'until=24h').catch(() => {})
}
