// Hosts on one network, made of Linux namespaces: each has its own network, mounts, host name and processes, and files
// in /etc, /var and /run that are its own (a fresh ufw and sshd among them), over those of this machine. A switch,
// which is one more namespace, joins them. Nothing is made in this machine's own network, and nothing has to be
// removed: a host lives as long as its first process, that one until we close its standard input, also by being killed;
// its network, mounts, processes and data (which are in memory) go with it. Needs root, and takes about half a second.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { INSTALL_COMMAND } from './install.ts'

export type Host = {
  readonly name: string
  /** The first one is IPv4, the second IPv6. */
  readonly addresses: readonly [string, string]
  /** A directory of its own, in memory. */
  readonly directory: string
  /** The command as one of this machine, with its files and processes, in this host's network and under its name. */
  inNetwork(command: readonly string[]): readonly [string, ...string[]]
  /** Runs a command to its end; after 120 s it is killed. */
  run(command: readonly string[], options?: RunOptions): Promise<Finished>
  /** As `run`, and throws unless it ended with 0; gives its standard output. */
  do(command: readonly string[], options?: RunOptions): Promise<string>
  /** Starts a command that runs until it is killed or the host goes; what it writes goes to `directory/LOG`. */
  start(log: string, command: readonly string[], options?: Pick<RunOptions, 'env'>): Promise<void>
}

export type RunOptions = { env?: Record<string, string>; input?: string }
export type Finished = { status: number | string; stdout: string; stderr: string }

export type HostChoice = { name: string; addresses: readonly [string, string] }

export type Network = {
  host(name: string): Host
  close(): Promise<void>
}

const RUN_TIMEOUT_SECONDS = 120
const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** In memory, as all of a host's /run. */
const DIRECTORY = '/run/host'
/** A JDK may be somewhere else. */
const PATH = `${SYSTEM_PATH}:${process.env['PATH'] ?? ''}`
const TOOLS = ['unshare', 'nsenter', 'ip', 'ufw', 'iptables', 'sshd', 'ssh', 'sudo', 'curl', 'make', 'git']

/** For the options of a test: false, or why no hosts can be made here. Throws with CI=true. */
export function skipWithoutHosts(): string | false {
  const missing = TOOLS.filter((tool) => !SYSTEM_PATH.split(':').some((directory) => existsSync(join(directory, tool))))
  const reason =
    process.platform !== 'linux' || process.getuid?.() !== 0
      ? 'Hosts are made of Linux namespaces, by root: run the tests as root on Linux'
      : missing.length > 0
        ? `Cannot find ${missing.join(', ')}: run ${INSTALL_COMMAND}`
        : false
  if (reason === false) return false
  if (process.env['CI'] === 'true') throw new Error(reason)
  console.error(`SKIPPED: ${reason}`)
  return reason
}

export async function startNetwork(choices: readonly HostChoice[]): Promise<Network> {
  const started: { child: ChildProcess }[] = []
  const close = async () => {
    for (const { child } of started) {
      child.ref()
      child.stdin?.end()
    }
    await Promise.all(started.map(({ child }) => child.exitCode ?? child.signalCode ?? once(child, 'exit')))
  }
  try {
    const machine = await startSwitch(started)
    const hosts = await Promise.all(choices.map((choice) => startHost(choice, machine, started)))
    return {
      close,
      host(name) {
        const found = hosts.find((host) => host.name === name)
        if (found === undefined) throw new Error(`There is no host "${name}" in this network`)
        return found
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** The first process of a host: makes all that is the host's own, says so with its process id, and stays. */
const FIRST_PROCESS = `
set -e
read -r pid _ </proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/sshd "$DIRECTORY"
for place in etc var; do
  mkdir -p "/run/.$place/own" "/run/.$place/work"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=/run/.$place/own,workdir=/run/.$place/work" "/$place"
done
hostname "$NAME"
echo "127.0.1.1 $NAME" >>/etc/hosts
cp /usr/share/ufw/*.rules /usr/share/ufw/ufw.conf /etc/ufw/
rm -f /etc/ssh/sshd_config.d/*
cp /usr/share/openssh/sshd_config /etc/ssh/sshd_config
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
echo "ready $pid"
while read -r _; do :; done
`

async function startHost(
  { name, addresses }: HostChoice,
  switchPid: number,
  started: { child: ChildProcess }[],
): Promise<Host> {
  const directory = DIRECTORY
  const own = ['--net', '--mount', '--uts', '--ipc', '--pid', '--fork', '--kill-child']
  const pid = await startFirst([...own, 'bash', '-c', FIRST_PROCESS], { NAME: name, DIRECTORY: directory }, started)
  const cable = `ip link add eth0 type veth peer name ${name} netns ${switchPid}
    ip addr add ${addresses[0]}/24 dev eth0
    ip addr add ${addresses[1]}/64 dev eth0 nodad
    ip link set lo up
    ip link set eth0 up`
  await finish('nsenter', ['-t', String(pid), '-n', 'sh', '-ec', cable])
  await finish('nsenter', [...['-t', String(switchPid), '-n', 'sh', '-ec'], `ip link set dev ${name} master switch up`])
  // What a command leaves behind would hold its pipes open: it is ended with it.
  const bounded = ['timeout', '--signal=KILL', String(RUN_TIMEOUT_SECONDS)]
  const inside = ['-t', String(pid), '-m', '-n', '-u', '-i', '-p', '--', 'env', '-i', `PATH=${PATH}`]
  const words = (command: readonly string[], env: Record<string, string> = {}) => [
    ...inside,
    ...Object.entries({ HOME: directory, LANG: 'C.UTF-8', ...env }).map(([key, value]) => `${key}=${value}`),
    ...bounded,
    ...command,
  ]
  const run = (command: readonly string[], { env, input }: RunOptions = {}) =>
    toItsEnd('nsenter', words(command, env), input)
  return {
    name,
    addresses,
    directory,
    inNetwork: (command) => ['nsenter', '-t', String(pid), '-n', '-u', '--', ...command],
    run,
    async do(command, options) {
      const { status, stdout, stderr } = await run(command, options)
      if (status === 0) return stdout
      throw new Error(`On ${name}: "${command.join(' ').slice(0, 300)}" ended with ${status}: ${stderr}${stdout}`)
    },
    async start(log, command, { env } = {}) {
      // Left to the host's first process: nsenter would stop when the command is stopped, and then nobody reaps it.
      const logged = ['sh', '-c', 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null &', 'sh', join(directory, log)]
      const { status, stderr } = await run([...logged, ...command], env === undefined ? {} : { env })
      if (status !== 0) throw new Error(`On ${name}: cannot start "${command.join(' ')}": ${stderr}`)
    },
  }
}

async function startSwitch(started: { child: ChildProcess }[]): Promise<number> {
  const script = `
    set -e
    ip link add switch type bridge forward_delay 0
    ip link set switch up
    echo "ready $$"
    while read -r _; do :; done`
  return startFirst(['--net', 'bash', '-c', script], {}, started)
}

/** Starts the process that holds namespaces, and gives its id as it is here. */
async function startFirst(
  words: readonly string[],
  env: Record<string, string>,
  started: { child: ChildProcess }[],
): Promise<number> {
  const child = spawn('unshare', words, { env: { PATH, ...env }, stdio: ['pipe', 'pipe', 'pipe'] })
  started.push({ child })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk))
  for await (const line of createInterface(child.stdout)) {
    const pid = /^ready (\d+)$/.exec(line)?.[1]
    if (pid !== undefined) {
      // Neither the process nor its pipes keep a test process alive that has nothing else to do.
      child.unref()
      for (const pipe of [child.stdin, child.stdout, child.stderr]) (pipe as unknown as { unref(): void }).unref()
      return Number(pid)
    }
  }
  throw new Error(`Cannot make a host of namespaces: ${said.trim()}`)
}

function toItsEnd(command: string, words: readonly string[], input?: string): Promise<Finished> {
  return new Promise((resolve, reject) => {
    // Without input no socket either, on which bash would think that it was called over a network.
    const child = spawn(command, words, { stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] })
    const output = { stdout: '', stderr: '' }
    child.stdout!.on('data', (chunk: Buffer) => (output.stdout += chunk))
    child.stderr!.on('data', (chunk: Buffer) => (output.stderr += chunk))
    // It may end before it has read all.
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ status: code ?? signal ?? 'unknown', ...output }))
  })
}

async function finish(command: string, words: readonly string[]): Promise<void> {
  const { status, stderr } = await toItsEnd(command, words)
  if (status !== 0) throw new Error(`Cannot make the network: "${words.join(' ')}" ended with ${status}: ${stderr}`)
}
