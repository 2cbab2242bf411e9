// Fetches what the tests of the deployment use: Debian's packages for containers and for hosts of namespaces, and the
// image that stands for node:26-bookworm-slim, a minimal Debian with the Node that the project pins. `node
// test/deploy/lab/install.ts` installs all and prints one line each. Missing packages come from apt-get where we are
// root on Debian, else the command is printed. With CI=true a failure exits 1; without it the tests concerned skip
// themselves.

import { existsSync, readFileSync } from 'node:fs'
import { chmod, copyFile, cp, mkdir, realpath, rm, symlink } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { installInto, withPackages } from '../../servers/install.ts'
import { runTool, ToolMissing } from '../../servers/run-tool.ts'
import { cacheDirectory } from '../../servers/server-cache.ts'
import { installKafkaTools, installMongosh, installPodmanCompose } from './machine-tools.ts'

export const INSTALL_COMMAND = 'node test/deploy/lab/install.ts'
export const CONTAINER_TOOLS = ['podman', 'buildah', 'runc', 'podman-compose', 'docker-compose'] as const
export const BASE_ARCHIVE = 'base.tar'

const ROOT = new URL('../../../', import.meta.url).pathname
const DEBIAN = 'bookworm'
/** Counts up when what is in the base changes here. */
const BASE_EDITION = 2

/** Programs by the packages that bring them. */
const PACKAGES: Readonly<Record<'containers' | 'hosts', { packages: string[]; programs: string[] }>> = {
  containers: {
    packages: [
      ...['podman', 'buildah', 'runc', 'podman-compose', 'docker-compose', 'netavark', 'aardvark-dns', 'iptables'],
      ...['debootstrap', 'debian-archive-keyring'],
    ],
    programs: [
      ...CONTAINER_TOOLS,
      '/usr/lib/podman/netavark',
      '/usr/lib/podman/aardvark-dns',
      'iptables',
      'debootstrap',
    ],
  },
  hosts: {
    packages: [
      'ufw',
      'iptables',
      'iproute2',
      'openssh-server',
      'openssh-client',
      'sudo',
      'make',
      'shellcheck',
      'systemd',
    ],
    programs: ['ufw', 'iptables', 'ip', 'sshd', 'ssh', 'sudo', 'make', 'shellcheck', 'systemd-analyze'],
  },
}

const searched = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin']

const nodeVersion = (): string =>
  (JSON.parse(readFileSync(join(ROOT, 'node_modules/node/package.json'), 'utf8')) as { version: string }).version

export const BASE_IMAGE = `localhost/pertoken-test-base:node${nodeVersion()}-${BASE_EDITION}`

/** Where the base lies: one archive, for `podman import`. */
export function baseDirectory(): string {
  return join(cacheDirectory(), `base-${DEBIAN}-node${nodeVersion()}-${BASE_EDITION}`)
}

/** A minimal Debian with Node and npm where the image of Docker's library has them. Takes half a minute. */
export async function installBase(): Promise<string> {
  if (process.getuid?.() !== 0) throw new Error('Cannot make the base image: debootstrap needs root')
  return installInto(baseDirectory(), {}, async (work, target) => {
    const root = join(work, 'root')
    await runTool('debootstrap', ['--variant=minbase', '--include=libatomic1', DEBIAN, root])
    await copyFile(join(ROOT, 'node_modules/node/bin/node'), join(root, 'usr/local/bin/node'))
    await chmod(join(root, 'usr/local/bin/node'), 0o755)
    await copyNpm(root)
    await runTool('chroot', [root, 'npm', '--version'])
    for (const left of [
      'var/cache/apt',
      'var/lib/apt/lists',
      'var/log',
      'tmp',
      'usr/share/doc',
      'usr/share/man',
      'usr/share/locale',
    ]) {
      await rm(join(root, left), { recursive: true })
      await mkdir(join(root, left))
    }
    await chmod(join(root, 'tmp'), 0o1777)
    await runTool('tar', ['-C', root, '--sort=name', '--numeric-owner', '-cf', join(target, BASE_ARCHIVE), '.'])
  })
}

/** The machine's own npm, which the checkout was installed with. */
async function copyNpm(root: string): Promise<void> {
  // …/npm/bin/npm-cli.js, by way of a link on the PATH. "npm root --global" would answer for the pinned Node.
  const program = searched.map((directory) => join(directory, 'npm')).find((path) => existsSync(path))
  if (program === undefined) throw new ToolMissing('Cannot run "npm": not found')
  const npm = join(dirname(await realpath(program)), '..')
  await mkdir(join(root, 'usr/local/lib/node_modules'), { recursive: true })
  await cp(npm, join(root, 'usr/local/lib/node_modules/npm'), { recursive: true })
  for (const name of ['npm', 'npx']) {
    await symlink(`../lib/node_modules/npm/bin/${name}-cli.js`, join(root, 'usr/local/bin', name))
  }
}

async function installPackages(kind: keyof typeof PACKAGES): Promise<string> {
  const { packages, programs } = PACKAGES[kind]
  const missing = () => programs.filter((program) => !isThere(program))
  if (missing().length === 0) return 'were there'
  await withPackages(packages, async () => {
    const names = missing()
    if (names.length > 0) throw new ToolMissing(`There is no ${names.join(', no ')}`)
  })
  return 'installed'
}

function isThere(program: string): boolean {
  return program.startsWith('/') ? existsSync(program) : searched.some((place) => existsSync(join(place, program)))
}

async function main(): Promise<void> {
  const jobs: [string, () => Promise<string>][] = [
    ['packages for containers', () => installPackages('containers')],
    ['packages for hosts', () => installPackages('hosts')],
    ['base image', installBase],
    ['kafka tools', installKafkaTools],
    ['mongosh', installMongosh],
    ['podman-compose', installPodmanCompose],
  ]
  for (const [name, install] of jobs) {
    const startedMs = performance.now()
    try {
      const state = await install()
      console.log(`${name}: ${state} (${((performance.now() - startedMs) / 1000).toFixed(1)} s)`)
    } catch (error) {
      console.error(`${name}: NOT INSTALLED: ${(error as Error).message}`)
      if (process.env['CI'] === 'true') process.exitCode = 1
    }
  }
}

if (import.meta.main) await main()
