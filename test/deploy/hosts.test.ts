// The four machines, as hosts of namespaces on one network, beside an admin and a stranger. Everything is done as the
// admin would do it: by the targets of deploy/Makefile, over a real ssh. What runs is what deploy/ says
// (host-servers.ts); every other port is listened on too, and before firewall.sh all of them answer to everybody;
// afterwards exactly those of the table do. Then an event goes the whole way. Once with ZooKeeper, once with KRaft,
// once with three machines.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { until } from '../flows/harness.ts'
import { skipWithoutKafka, skipWithoutMongod } from '../servers/servers-for-tests.ts'
import { buildPertoken, ROOT, skipWithoutContainers } from './lab/containers.ts'
import {
  ADDRESSES,
  type KafkaMode,
  NODE,
  standInForCompose,
  startKafka,
  startMongod,
  startProcessor,
  startProducers,
} from './lab/host-servers.ts'
import { type Finished, type Host, type Network, skipWithoutHosts, startNetwork } from './lab/hosts.ts'
import { homeOf, makeKey, makeUser, sshWithKey, startSshd } from './lab/logins.ts'
import type { Seen } from './lab/ports.ts'

const PORTS_TS = join(ROOT, 'test/deploy/lab/ports.ts')
/** Of what runs, and two that nothing of ours uses. */
const PORTS = [22, 2181, 3000, 8080, 9092, 9093, 9100, 27017]
const ROLES = ['vm1', 'vm2', 'vm3', 'vm4'] as const
type Role = (typeof ROLES)[number]

const skip = skipWithoutHosts() || (await skipWithoutKafka('3.9')) || (await skipWithoutMongod())
const hasContainers = skip === false && (await skipWithoutContainers()) === false

before(async () => {
  if (hasContainers) await buildPertoken()
})

type Case = {
  name: string
  mode: KafkaMode
  /** Host names by role. */
  hosts: Record<Role, string>
  http: 'open' | 'closed'
  /** The admin's other address is an IPv6 one. */
  adminV6: boolean
  /** What is tried in this case beside what all have. */
  further(make: Make, network: Network): Promise<void>
}

const FOUR = { vm1: 'kafka', vm2: 'mongodb', vm3: 'processor', vm4: 'producers' }
const THREE = { ...FOUR, vm4: 'processor' }
// biome-ignore format: a table
const CASES: Case[] = [
  { name: 'four machines with ZooKeeper', mode: 'zookeeper', hosts: FOUR, http: 'open', adminV6: false, further: missesADocument },
  { name: 'four machines with KRaft', mode: 'kraft', hosts: FOUR, http: 'closed', adminV6: true, further: mendsAHole },
  { name: 'three machines', mode: 'kraft', hosts: THREE, http: 'closed', adminV6: false, further: handsTargetsOn },
]

/** The table that the firewall has to keep, once more and by hand: to, port, from. All else is closed, all IPv6 too. */
const TABLE: [to: Role, port: number, from: (Role | 'admin')[]][] = [
  ['vm1', 22, ['admin']],
  ['vm2', 22, ['admin']],
  ['vm3', 22, ['admin']],
  ['vm4', 22, ['admin']],
  ['vm1', 9092, ['vm3', 'vm4']],
  ['vm2', 27017, ['vm3']],
]

test('hosts of a test that is killed are gone, with all that ran on them', { skip: skipWithoutHosts() }, async () => {
  const mark = `pertoken-${process.pid}-${Date.now()}`
  const script = `
    import { startNetwork } from ${JSON.stringify(join(ROOT, 'test/deploy/lab/hosts.ts'))}
    const network = await startNetwork([{ name: 'a', addresses: ['10.0.1.1', 'fd00::1'] }])
    await network.host('a').start('log', ['sh', '-c', 'while sleep 1; do :; done', '${mark}'])
    console.log('up')
    setInterval(() => {}, 1000)`
  const child = spawn(NODE, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  const running = () => globSync('/proc/[0-9]*/cmdline').filter((path) => cmdlineOf(path).includes(`\0${mark}\0`))
  assert.equal(running().length, 1)
  child.kill('SIGKILL')
  await until('its host is gone', async () => running().length === 0, 10)
})

function cmdlineOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    // It ended a moment ago.
    return ''
  }
}

for (const one of CASES) {
  test(`${one.name}: only the table is open, and an event goes the whole way`, { skip }, async (t) => {
    const machines = [...new Set(Object.values(one.hosts))]
    const network = await startNetwork(
      [...machines, 'admin', 'stranger'].map((name) => ({ name, addresses: ADDRESSES[name]! })),
    )
    // What runs outside of the network's own processes goes first.
    const ends = [() => network.close()]
    t.after(async () => {
      for (const end of ends.reverse()) await end()
    })
    const [make] = await Promise.all([
      makeAdmin(network, one, machines),
      startKafka(network.host('kafka'), one.mode),
      startMongod(network.host('mongodb')),
    ])
    await Promise.all(machines.map((name) => listenElsewhere(network.host(name))))
    for (const [at, seen] of await everyPort(network, machines)) assert.notEqual(seen, 'blocked', `${at} before`)

    const moved = '~deployer/pertoken/src/moved.ts'
    const vm3 = network.host(one.hosts.vm3)
    await vm3.do([
      'bash',
      '-ec',
      `install -d -o deployer ~deployer/pertoken/{,src}; install -o deployer /dev/null ${moved}`,
    ])
    await make.do('copy')
    await vm3.do(['bash', '-ec', `cd ~deployer/pertoken; [[ -e package.json && -e src/cli/main.ts && ! -e ${moved} ]]`])
    assert.equal((await make.do('harden')).match(/: set/g)?.length, 2 * machines.length)

    ends.push(await startProcessor(network.host(one.hosts.vm3), hasContainers))
    await startProducers(network.host(one.hosts.vm4))
    const [seen] = await Promise.all([
      everyPort(network, machines),
      onlyTheBrokerListens(network.host('kafka'), one.mode),
    ])
    const open = openPorts(one)
    assert.deepEqual(
      seen.filter(([at, seen]) => (seen === 'open') !== open.has(at) || seen === 'refused'),
      [],
    )
    assert.equal(seen.filter(([, seen]) => seen === 'open').length, open.size)

    await standInForCompose(network.host(one.hosts.vm4))
    assert.match(await make.do('smoke'), SMOKE)
    assert.match(await make.do('matrix'), /The network is as the inventory says/)
    const hosts = () => hostsSeen(network.host(one.hosts.vm3))
    await until('samples of both producers are stored', async () => (await hosts()).join() === 'gpu-1,gpu-2,smoke')
    await one.further(make, network)
  })
}

/** Each hop with its time. */
const SMOKE = new RegExp(
  [
    String.raw`^VM4 → VM1 +both events are in Kafka +\d+ ms$`,
    String.raw`^VM1 → VM3 → VM2 +the document in (gpu_metrics|token_usage) +\d+ ms$`,
    String.raw`^VM1 → VM3 → VM2 +the document in (?!\1)(gpu_metrics|token_usage) +\d+ ms$`,
    '^Smoke: passed',
  ].join('\n'),
  'm',
)

/** Runs a target of deploy/Makefile on the admin's host. */
type Make = {
  inventory: string
  run(...words: string[]): Promise<Finished>
  do(...words: string[]): Promise<string>
}

/** Users on each machine, a key, and an inventory for the admin. */
async function makeAdmin(network: Network, one: Case, machines: readonly string[]): Promise<Make> {
  const admin = network.host('admin')
  const key = await makeKey(admin)
  await Promise.all(
    machines.map(async (name) => {
      await makeUser(network.host(name), { name: 'deployer', key, sudo: 'without password' })
      await startSshd(network.host(name))
    }),
  )
  const lines = ROLES.map((role) => {
    const name = one.hosts[role]
    return `${role} ${name} ${ADDRESSES[name]![0]} deployer@${ADDRESSES[name]![0]}`
  })
  lines.push(...ADDRESSES['admin']!.slice(0, one.adminV6 ? 2 : 1).map((address) => `admin ${address}`))
  lines.push(`http ${one.http}`)
  const inventory = join(admin.directory, 'inventory')
  await admin.do(['tee', inventory], { input: `${lines.join('\n')}\n` })
  const words = [
    'make',
    '-s',
    '-C',
    join(ROOT, 'deploy'),
    `inventory=${inventory}`,
    `SSH=${sshWithKey(admin).join(' ')}`,
  ]
  // Where the checkout is not root's own, git wants to be told that it may be read.
  const env = { GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'safe.directory', GIT_CONFIG_VALUE_0: '*' }
  return {
    inventory,
    run: (...further) => admin.run([...words, ...further], { env }),
    do: (...further) => admin.do([...words, ...further], { env }),
  }
}

/** What is wrong is found, said, and mended: a port that somebody opened by hand. */
async function mendsAHole(make: Make, network: Network): Promise<void> {
  await network.host('mongodb').do(['ufw', 'allow', '27017/tcp'])
  const { status, stderr } = await make.run('matrix')
  assert.equal(status, 2)
  assert.match(
    stderr,
    /^vm1 → vm2 port 27017: expected blocked, seen open: more is open than should be: make vm2-harden$/m,
  )
  assert.match((await make.run('vm2-harden')).stderr, /not of the table, and nothing else may be open/)
  await make.do('vm2-harden', 'REPLACE=yes')
  assert.equal((await make.do('harden')).match(/nothing to change/g)?.length, 2 * 4)
  assert.match(await make.do('matrix'), /The network is as the inventory says/)
}

/** A stranger's machine says that all is closed to it; and without MongoDB the smoke test says what is missing. */
async function missesADocument(make: Make, network: Network): Promise<void> {
  const stranger = network.host('stranger')
  const inventory = await network.host('admin').do(['cat', make.inventory])
  await stranger.do(['tee', join(stranger.directory, 'inventory')], { input: inventory })
  const asStranger = ['bash', join(ROOT, 'deploy/matrix.sh'), '--as', 'stranger']
  const said = await stranger.do(asStranger, { env: { INVENTORY: join(stranger.directory, 'inventory') } })
  assert.match(said, /The network is as the inventory says/)

  const mongodb = network.host('mongodb')
  await mongodb.do(['sh', '-c', 'kill -STOP "$(ss -Hltnp "sport = :27017" | grep -om1 "pid=[0-9]*" | cut -d= -f2)"'])
  const { status, stderr } = await make.run('smoke', 'SMOKE_SECONDS=3')
  assert.equal(status, 2)
  assert.match(stderr, /after 3 s there is no document smoke-\S+ in gpu_metrics token_usage/)
}

/** `make ping`, and targets of a machine's own Makefile: with the addresses, and with what was given. */
async function handsTargetsOn(make: Make, network: Network): Promise<void> {
  assert.match(await make.do('ping'), /^vm1 kafka: reached as deployer@10\.0\.1\.197 in \d+ ms\n(.*\n){2}$/)
  const folders = ['vm1-kafka', 'vm2-mongodb', 'vm3-processor', 'vm4-producers']
  const makefile =
    'ps health wipe:\n\t@echo "$@ in $(notdir $(CURDIR)): $$VALUE $(VM1) $(VM2) $(VM3) $(VM4)"; test $@ != $$FAILS\n'
  for (const name of ['kafka', 'mongodb', 'processor']) {
    const write = `for folder in ${folders.join(' ')}; do mkdir -p "$0/$folder"; printf %s "$1" >"$0/$folder/Makefile"; done`
    const place = join(homeOf(network.host(name), 'deployer'), 'stand-in/deploy')
    await network.host(name).do(['bash', '-c', write, place, makefile])
  }
  const given = ["VALUE={'a b': $$x}", 'FAILS=wipe', 'DIR=stand-in']
  const addresses = '10.0.1.197 10.0.1.86 10.0.1.112 10.0.1.112'
  assert.equal(await make.do('vm2-ps', ...given), `ps in vm2-mongodb: {'a b': $x} ${addresses}\n`)
  assert.equal((await make.run('vm4-wipe', ...given)).status, 2)
  const all = await make.do('status', 'FAILS=none', 'DIR=stand-in')
  for (const folder of folders)
    assert.match(all, new RegExp(`^health in ${folder}:  ${addresses}\n${folder.slice(0, 3)}: well$`, 'm'))
  const wrong = await make.run('status', 'FAILS=health', 'DIR=stand-in')
  assert.equal(wrong.status, 2)
  assert.match(wrong.stdout, /vm4: NOT WELL/)
}

async function listenElsewhere(host: Host): Promise<void> {
  const ports = PORTS.filter((port) => !(host.name === 'processor' && port === 8080))
  await host.start('listen.log', [NODE, PORTS_TS, 'listen', host.addresses.join(','), ports.join(',')])
  await host.do(['sh', '-c', 'until grep -qs listening "$0"; do sleep 0.05; done', join(host.directory, 'listen.log')])
}

const key = (from: string, to: string, address: string, port: number) => `${from} → ${to} ${address}:${port}`

/** From everywhere to every port of every machine, by both families: what is seen. */
async function everyPort(network: Network, machines: readonly string[]): Promise<[string, Seen][]> {
  const sources = [...machines, 'admin', 'stranger']
  const all = await Promise.all(
    sources.map(async (from) => {
      const targets = machines
        .filter((to) => to !== from)
        .flatMap((to) => ADDRESSES[to]!.flatMap((address) => PORTS.map((port) => ({ to, address, port }))))
      const words = targets.map(({ address, port }) => `${address}:${port}`)
      const seen = JSON.parse(await network.host(from).do([NODE, PORTS_TS, 'probe', ...words])) as Record<string, Seen>
      return targets.map(({ to, address, port }): [string, Seen] => [
        key(from, to, address, port),
        seen[`${address}:${port}`]!,
      ])
    }),
  )
  return all.flat()
}

/** What the table opens, in the words of `everyPort`. */
function openPorts({ hosts, http, adminV6 }: Case): Set<string> {
  const table: typeof TABLE = http === 'open' ? [...TABLE, ['vm3', 8080, ['admin']]] : TABLE
  const open = new Set<string>()
  for (const [role, port, sources] of table) {
    for (const source of sources) {
      const from = source === 'admin' ? 'admin' : hosts[source]
      const [v4, v6] = ADDRESSES[hosts[role]]!
      open.add(key(from, hosts[role], v4, port))
      if (source === 'admin' && adminV6) open.add(key(from, hosts[role], v6, port))
    }
  }
  return open
}

/** What Java listens on: the broker at the machine's address, and what is asked by this machine only at 127.0.0.1. */
async function onlyTheBrokerListens(host: Host, mode: KafkaMode): Promise<void> {
  const lines = (await host.do(['ss', '-Hltnp'])).split('\n').filter((line) => line.includes('"java"'))
  const listening = lines.map((line) => line.split(/\s+/)[3]!.replace(/^\[::ffff:([\d.]+)\]/, '$1')).sort()
  const local = mode === 'zookeeper' ? 2181 : 9093
  assert.deepEqual(listening, [`${host.addresses[0]}:9092`, `127.0.0.1:${local}`])
  if (mode === 'kraft') return
  const asked = 'exec 3<>/dev/tcp/127.0.0.1/2181; printf srvr >&3; cat <&3'
  assert.match(await host.do(['bash', '-c', asked]), /Mode: standalone/)
}

async function hostsSeen(processor: Host): Promise<string[]> {
  const gpus = JSON.parse(await processor.do(['curl', '-sS', 'http://127.0.0.1:8080/api/v1/gpus'])) as {
    slots: { host: string }[]
  }
  return [...new Set(gpus.slots.map(({ host }) => host))].sort()
}
