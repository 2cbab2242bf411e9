// A machine of its own for tests of what runs under systemd: this machine's disk (copy-on-write, in memory), a real
// systemd as its init, its own users, processes, host name and network with one address. Made from namespaces, so it
// needs root and no image; it boots in about a second, and nothing of it is left when it is closed or the test ends.

import { type ChildProcess, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { untilAnswered } from '../../servers/managed-server.ts'
import { type Ran, type RunOptions, runToEnd } from './run-to-end.ts'

export type Machine = {
  /** Runs a line of bash as root in it, in its folder /srv; by default 60 s at most. */
  run(line: string, options?: Pick<RunOptions, 'input' | 'timeoutMs'>): Promise<Ran>
  /** Puts a file or a folder of this machine into it. */
  put(path: string, target: string): Promise<void>
  close(): Promise<void>
}

const BOOT = new URL('machine-boot.sh', import.meta.url).pathname
const BOOT_TIMEOUT_MS = 30_000
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Why no machine can be made here, or false. */
export function machinesAreMissing(): string | false {
  if (process.getuid?.() !== 0) return 'a machine for tests needs root: namespaces and mounts'
  for (const path of ['/lib/systemd/systemd', '/usr/bin/unshare', '/usr/bin/nsenter', '/usr/bin/setpriv']) {
    if (!existsSync(path)) return `a machine for tests needs ${path}: apt-get install systemd util-linux`
  }
  return false
}

/** Boots it. `address` is its only one beside loopback. */
export async function startMachine(options: { name: string; address: string }): Promise<Machine> {
  await sweep()
  const folder = mkdtempSync(join(tmpdir(), `pertoken-machine-${process.pid}-`))
  const cgroup = join(cgroup2(), basename(folder))
  mkdirSync(cgroup)
  // It joins its control group before it gets a namespace of them, whose root that is then; and it ends with us, killed
  // or not.
  const script =
    'echo $$ >"$1/cgroup.procs" && shift && exec setpriv --pdeathsig KILL unshare -fpmuinC --kill-child "$@"'
  const child = spawn('bash', ['-c', script, 'machine', cgroup, BOOT, folder, options.name, options.address], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += String(data)))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const end = () => void child.kill('SIGKILL')
  process.once('exit', end)

  const run: Machine['run'] = async (line, runOptions = {}) => {
    const init = initOf(child)
    if (init === undefined) throw new Error(`Cannot run "${line}": the machine is not up: ${said}`)
    const words = ['-t', init, '-a', 'env', '-i', `PATH=${PATH}`, 'HOME=/root', 'LANG=C.UTF-8']
    // With a socket as standard input bash takes itself for one that was called over a network, and reads bashrc.
    const bash = ['bash', '--norc', '-c', `mkdir -p /srv && cd /srv && ${line}`]
    return runToEnd('nsenter', [...words, ...bash], runOptions)
  }
  const close = async () => {
    process.off('exit', end)
    end()
    await ended
    await removeCgroups(cgroup)
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    await untilAnswered(async () => {
      if (child.exitCode !== null) return
      const { stdout } = await run('systemctl is-system-running', { timeoutMs: 5000 })
      if (!/^(running|degraded)/.test(stdout)) throw new Error(`It is ${stdout.trim()}`)
    }, BOOT_TIMEOUT_MS)
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`)
  } catch (error) {
    await close()
    throw new Error(`Cannot boot a machine for tests: ${(error as Error).message}; it said: ${said}`)
  }
  const put: Machine['put'] = async (path, target) => {
    // From this machine's root, which is another one than its own.
    const pack = `tar -C '${dirname(path)}' -c '${basename(path)}'`
    const unpack = `mkdir -p '${target}' && tar -C '${target}' --no-same-owner -x`
    const line = `set -o pipefail; ${pack} | nsenter -t ${initOf(child)} -a bash --norc -c "$0"`
    const { status, stderr } = await runToEnd('bash', ['-c', line, unpack])
    if (status !== 0) throw new Error(`Cannot put "${path}" into the machine: ${stderr}`)
  }
  return { run, put, close }
}

/** Process id of its init: the child of unshare. */
function initOf(child: ChildProcess): string | undefined {
  try {
    return readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')[0] || undefined
  } catch {
    return undefined
  }
}

/** Where control groups of version 2 are mounted: alone, or beside those of version 1. */
function cgroup2(): string {
  const [, place] = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8')) ?? []
  if (place === undefined)
    throw new Error('Cannot boot a machine for tests: no control groups of version 2 are mounted')
  return place
}

/** Removes what tests that were killed have left: a folder and a control group; what was in them went with the test. */
async function sweep(): Promise<void> {
  for (const name of readdirSync(cgroup2())) {
    const pid = /^pertoken-machine-(\d+)-/.exec(name)?.[1]
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue
    writeFileSync(join(cgroup2(), name, 'cgroup.kill'), '1')
    await removeCgroups(join(cgroup2(), name))
    rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
}

async function removeCgroups(path: string): Promise<void> {
  if (!existsSync(path)) return
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeCgroups(join(path, entry.name))
  }
  // What is dying in it still counts for a moment.
  for (let tries = 0; tries < 100; tries++) {
    try {
      rmdirSync(path)
      return
    } catch {
      await sleep(20)
    }
  }
}
