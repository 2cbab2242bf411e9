// The four machines of deploy/, each by the targets of its own Makefile. VM1 is a machine of its own with a real
// systemd, on which the broker runs as its unit says, in both modes. VM2, VM3 and VM4 are their compose files in
// podman, with a real mongod and a real Kafka. What a target cannot do without a registry is in a table of the
// machine's README.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { constants, inflateRawSync } from 'node:zlib'
import { MongoClient } from 'mongodb'
import { parse } from 'yaml'
import { processor } from '../../src/cli/commands/processor.ts'
import { produce } from '../../src/cli/commands/produce.ts'
import { OPTIONS } from '../../src/cli/options.ts'
import { COLLECTIONS, indexName } from '../../src/store/mongo/collections.ts'
import { temporaryDirectory, until } from '../flows/harness.ts'
import { freePort } from '../servers/managed-server.ts'
import { kafkaForTests, skipWithoutKafka, skipWithoutMongod } from '../servers/servers-for-tests.ts'
import {
  buildPertoken,
  containerEnv,
  containerName,
  hasImage,
  PERTOKEN_IMAGE,
  podman,
  ROOT,
  skipWithoutContainers,
} from './lab/containers.ts'
import { machinesAreMissing, startMachine } from './lab/machine.ts'
import {
  copyOfDeploy,
  FOLDERS,
  type Folder,
  type FolderName,
  folderAt,
  runHere,
  writeEnv,
} from './lab/machine-folders.ts'
import { podmanCompose, skipWithoutMachineTools, writeKafkaArchive } from './lab/machine-tools.ts'
import { mongoImage } from './lab/mongo-image.ts'
import { runToEnd } from './lab/run-to-end.ts'

/** What each machine's Makefile has to offer. All of it is run below, but for what its README lists. */
const TARGETS: Record<FolderName, string> = {
  'vm1-kafka':
    'setup build up wait down restart ps logs health topics list-topics send-metric send-token consume-metric consume-token wipe',
  'vm2-mongodb':
    'setup build up wait down restart ps logs health ping init-indexes stats shell password rotate backup restore',
  'vm3-processor': 'setup build set-password up wait down restart ps logs health curl doctor pertoken',
  'vm4-producers': 'setup build up wait down restart ps logs health run-once send doctor',
}
const NOT_RUN: Partial<Record<FolderName, string[]>> = { 'vm2-mongodb': ['build'] }
const COMPOSED = FOLDERS.slice(1)

const deploy = (...names: string[]) => join(ROOT, 'deploy', ...names)
const skipServers = (await skipWithoutKafka('3.9')) || (await skipWithoutMongod()) || (await skipWithoutMachineTools())
const skipMachine = skipWithoutMachines()
const skipCompose = await skipWithoutContainers()
const skipVm1 = skipMachine || skipServers
const skipContainers = skipCompose || skipServers

function skipWithoutMachines(): string | false {
  const reason = machinesAreMissing()
  if (reason !== false && process.env['CI'] === 'true') throw new Error(reason)
  if (reason !== false) console.error(`SKIPPED: ${reason}`)
  return reason
}

type Compose = { services: Record<string, Record<string, unknown>> }

/** Asserts that a folder's targets were all run, but for those of NOT_RUN. */
function assertAllRan(name: FolderName, { ran }: Folder): void {
  const expected = TARGETS[name].split(' ').filter((target) => !NOT_RUN[name]?.includes(target))
  assert.deepEqual([...ran].sort(), expected.sort())
}

describe('the files of the four machines', () => {
  for (const name of FOLDERS) {
    test(`${name} has its targets, and its README lists what no test runs`, async (t) => {
      const folder = folderAt(join(copyOfDeploy(temporaryDirectory(t)), name), runHere(processEnv()))
      const help = await folder.make('help')
      const targets = help.split('\n').flatMap((line) => /^([a-z-]+) +\S/.exec(line)?.[1] ?? [])
      assert.deepEqual(targets.sort(), `${TARGETS[name]} help`.split(' ').sort())
      const readme = readFileSync(deploy(name, 'README.md'), 'utf8')
      const [, table = ''] = /## What no test runs\n([\s\S]*?)(\n## |$)/.exec(readme) ?? []
      const rows = [...table.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, target]) => target)
      assert.deepEqual(rows, NOT_RUN[name] ?? [])
      assert.ok(readme.split('\n').length <= 60, 'a README is one page')
    })

    test(`${name}: mistakes in .env are said by line, all at once`, async (t) => {
      const path = join(copyOfDeploy(temporaryDirectory(t)), name)
      const folder = folderAt(path, runHere(processEnv()))
      const example = readFileSync(join(path, '.env.example'), 'utf8')
      const [line = '', required = '', value = ''] = /^([A-Z_0-9]+)=(.*)$/m.exec(example) ?? []
      for (const [text, said] of [
        [example.replace(line, ''), `has no value for ${required}: expected one, for example ${line}`],
        [example.replace(line, `${required}=`), `has no value for ${required}`],
        [`${example}${line}\n`, `has ${required} again: expected it once`],
        [example.replace(line, `${required}="${value}"`), `the value of ${required} holds a blank, a quote`],
        [example.replace(line, `${required}=$HOME`), `the value of ${required} holds a blank, a quote, a dollar sign`],
        [example.replace(line, `${line} `), `the value of ${required} holds a blank`],
        [example.replace(line, `${line}\r`), 'ends as on Windows'],
        [`${example}KAFKA_BOOTSTRAPS=x:1\n`, 'has KAFKA_BOOTSTRAPS, which this machine does not know'],
        [`${example}swordfish\n`, 'is no NAME=value'],
      ] as const) {
        writeFileSync(join(path, '.env'), `${text}\nfoo\n`)
        const { status, stderr } = await folder.try('ps')
        assert.equal(status, 2, stderr)
        assert.ok(stderr.includes(said), `${JSON.stringify(said)} is missing in: ${stderr}`)
        assert.match(stderr, /^\.env:\d+ is no NAME=value/m)
        assert.doesNotMatch(stderr, /swordfish/)
      }
    })
  }

  test('a missing .env is made, with the addresses of the inventory where they are given', async (t) => {
    const root = copyOfDeploy(temporaryDirectory(t))
    const given = 'VM1=10.9.0.1 VM2=10.9.0.2 VM3=10.9.0.3 VM4=10.9.0.4'
    const v6 = 'VM1=fd00::1 VM2=fd00::2 VM3=fd00::3 VM4=fd00::4'
    for (const [name, words, line] of [
      ['vm1-kafka', '', 'KAFKA_ADDRESS=10.0.1.197'],
      ['vm1-kafka', v6, 'KAFKA_ADDRESS=fd00::1'],
      ['vm2-mongodb', '', 'MONGO_ADDRESS=10.0.1.86'],
      ['vm2-mongodb', given, 'MONGO_ADDRESS=10.9.0.2'],
      ['vm3-processor', '', 'KAFKA_BOOTSTRAP=10.0.1.197:9092'],
      ['vm3-processor', given, 'MONGO_URL=mongodb://pertoken@10.9.0.2:27017/ca0?replicaSet=pertoken'],
      ['vm3-processor', v6, 'MONGO_URL=mongodb://pertoken@[fd00::2]:27017/ca0?replicaSet=pertoken'],
      ['vm3-processor', '', '# PRICE_PER_HOUR_USD=0.85'],
      ['vm4-producers', given, 'KAFKA_BOOTSTRAP=10.9.0.1:9092'],
    ] as const) {
      const path = join(root, name)
      rmSync(join(path, '.env'), { force: true })
      await folderAt(path, runHere({ ...processEnv(), COMPOSE: 'true' })).try('ps', words)
      assert.ok(readFileSync(join(path, '.env'), 'utf8').split('\n').includes(line), `${name} ${words}: ${line}`)
    }
    assert.match(readFileSync(join(ROOT, '.gitignore'), 'utf8'), /^\.env$/m)
  })

  test('the units pass systemd-analyze verify and leave a broker little to do', { skip: skipMachine }, async () => {
    const units = globSync(deploy('vm1-kafka/units/*.service'))
    assert.equal(units.length, 2)
    const verified = await runToEnd('systemd-analyze', ['verify', '--man=no', '--recursive-errors=no', ...units])
    assert.deepEqual([verified.status, verified.stderr], [0, ''])
    for (const unit of units) {
      const { status, stdout } = await runToEnd('systemd-analyze', [
        'security',
        '--offline=yes',
        '--threshold=15',
        unit,
      ])
      assert.equal(status, 0, stdout)
    }
  })

  test('a processor and a producer get every setting that .env may have', () => {
    for (const [name, service, options] of [
      ['vm3-processor', 'processor', processor.options],
      ['vm4-producers', 'producer-1', produce.options],
    ] as const) {
      const file = parse(readFileSync(deploy(name, 'compose.yaml'), 'utf8'), { merge: true }) as Compose
      const handed = Object.keys(file.services[service]!['environment'] as object)
      const kafka = Object.keys(OPTIONS).filter((option) => /^KAFKA_(SASL|TLS)_/.test(option))
      const wanted = [...options, ...kafka].filter((option) => !['DATA_DIR', 'PORT', 'HOSTNAME'].includes(option))
      assert.deepEqual(
        wanted.filter((option) => !handed.includes(option) && !handed.includes(`${option}_FILE`)),
        [],
      )
      const example = readFileSync(deploy(name, '.env.example'), 'utf8')
      const fixed = /^(GPU_SEED|GPU_SEED_LOCAL|DATA_DIR|HOSTNAME|MONGO_PASSWORD_FILE)$/
      for (const one of handed.filter((option) => !fixed.test(option)))
        assert.match(example, new RegExp(`^(# )?${one}=`, 'm'), `${name}/.env.example has no ${one}`)
    }
  })

  for (const name of COMPOSED) {
    test(`${name}: docker-compose takes its file, and a container may do little`, { skip: skipCompose }, async (t) => {
      const path = join(copyOfDeploy(temporaryDirectory(t)), name)
      writeEnv(path, {})
      const { status, stdout, stderr } = await runToEnd('docker-compose', ['config'], { cwd: path, env: processEnv() })
      assert.equal(status, 0, stderr)
      const { services } = parse(stdout) as Compose
      for (const service of Object.values(services)) {
        assert.equal(service['network_mode'], 'host')
        assert.equal(service['read_only'], true)
        assert.deepEqual([service['cap_drop'], service['cap_add']], [['ALL'], undefined])
        assert.deepEqual(service['security_opt'], ['no-new-privileges'])
        assert.ok(service['mem_limit'] && service['pids_limit'])
        assert.deepEqual([service['ports'], service['privileged']], [undefined, undefined])
        // What is mounted to be written is MongoDB's data only.
        const writable = ((service['volumes'] ?? []) as string[]).filter((volume) => !volume.endsWith(':ro'))
        assert.equal(writable.length, name === 'vm2-mongodb' ? 1 : 0)
      }
      const hosts = Object.values(services).flatMap((service) => service['hostname'] ?? [])
      assert.equal(
        new Set(hosts).size,
        { 'vm2-mongodb': 0, 'vm3-processor': 1, 'vm4-producers': 2 }[name as 'vm2-mongodb'],
      )
    })
  }
})

test('every command of docs/deployment.md is one that a test runs', async (t) => {
  const text = readFileSync(join(ROOT, 'docs/deployment.md'), 'utf8')
  const blocks = [...text.matchAll(/([^\n]*\n[^\n]*\n)\n```sh\n([\s\S]*?)```/g)]
    .filter(([, before]) => !/needs a cloud account/i.test(before!))
    .map(([, , block]) => block!)
  assert.ok(blocks.length > 5)
  // The first one as it stands there; what it leaves is the example's inventory.
  const project = temporaryDirectory(t)
  copyOfDeploy(project)
  const { status, stdout } = await runToEnd('bash', ['-ec', blocks[0]!], { cwd: project, env: processEnv() })
  assert.deepEqual([status, /is right: 4 machines/.test(stdout)], [0, true])

  const others = globSync(join(ROOT, 'test/deploy/*.test.ts')).map((path) => readFileSync(path, 'utf8'))
  const isRun = (word: string) => {
    const [, number, target = ''] = /^vm([1-4])-(.*)$/.exec(word) ?? []
    if (number === undefined) return others.some((test) => test.includes(`'${word}'`))
    return TARGETS[FOLDERS[Number(number) - 1]!].split(' ').includes(target)
  }
  const lines = blocks.slice(1).flatMap((block) => block.split('\n').filter((line) => line !== ''))
  const spans = [...text.matchAll(/`(make [^`]*)`/g)].map(([, span]) => span!).filter((span) => span !== 'make up')
  for (const line of [...lines, ...spans]) {
    const command = line.replace(/\s+#.*/, '')
    assert.match(command, /^make /, `${command} is run by no test`)
    const words = command
      .replaceAll(/\S+='[^']*'|\S+=\S*|-s\b|\||\bmake\b/g, ' ')
      .trim()
      .split(/\s+/)
    for (const word of words) assert.ok(isRun(word), `make ${word} is run by no test`)
  }
})

test('the diagrams are what their sources say', () => {
  const paths = globSync(join(ROOT, 'docs/diagrams/*.puml'))
  assert.equal(paths.length, 2)
  for (const path of paths) {
    const picture = readFileSync(path.replace(/puml$/, 'svg'), 'utf8')
    const source = readFileSync(path, 'utf8')
      .replace(/^[\s\S]*?@startuml.*\n/, '')
      .replace(/\n@enduml\s*$/, '')
    assert.equal(sourceIn(picture), source, `${path} was changed: make diagrams`)
  }
})

describe('machines that run', { concurrency: true }, () => {
  test('VM1 with KRaft: every target, on a real systemd', { skip: skipVm1 }, async (t) => {
    const { vm, folder } = await startVm1(t, 'kraft')
    await folder.refuse('setup', '', /installs Java[\s\S]*Nobody is here to ask: say YES=1/)
    await folder.refuse('build', 'KAFKA_TGZ=/root/other.tgz', /other\.tgz has not the SHA-512/)
    await folder.refuse('build', 'KAFKA_MIRRORS=file:///root/bad', /another SHA-512[\s\S]*No mirror had kafka_2\.13/)
    assert.match(await folder.make('build'), /bad\/3\.9\.1[\s\S]*good\/3\.9\.1[\s\S]*is now in \/opt\/kafka-3\.9\.1/)
    await folder.refuse(
      'setup',
      'YES=1 KAFKA_ADDRESS=localhost KAFKA_HEAP=lots KAFKA_MODE=both',
      /KAFKA_MODE is "both"[\s\S]*KAFKA_HEAP is "lots"[\s\S]*"localhost", which is not an address of this machine[\s\S]*10\.0\.1\.197/,
    )
    assert.match(await folder.make('setup', 'YES=1'), /Kafka 3\.9\.1 is in [\s\S]*Next: make up topics/)
    assert.match(await folder.make('up'), /Kafka answers at 10\.0\.1\.197:9092/)
    await folder.make('topics')
    assert.match(await folder.make('health'), /^ok +10\.0\.1\.197:9092 \(kraft\)/)
    assert.match(await folder.make('list-topics'), /token\.usage\.v1.*PartitionCount: 12\b.*retention\.bytes=715827882/)
    assert.deepEqual(await listening(vm), ['10.0.1.197:9092', '127.0.0.1:9093'])
    assert.match((await vm.run('ps -o user= -C java')).stdout, /^kafka\n$/)

    await folder.make('send-metric')
    await folder.make('send-token', `VALUE='{"ts":1,"host":"it'\\''s","gpu_index":0}'`)
    await folder.make('restart')
    assert.match(await folder.make('consume-metric', 'N=1'), /\tvm1-test\t\{"ts":"20.*"host":"vm1-test"/)
    assert.match(await folder.make('consume-token', 'N=1'), /\tit's\t\{"ts":1,"host":"it's","gpu_index":0\}\n/)
    await folder.make('wait')
    assert.match(await folder.make('ps'), /kafka\.service[\s\S]*active \(running\)/)
    assert.match(await folder.make('logs'), /Kafka Server started/)

    await folder.refuse('restart', 'KAFKA_MODE=zookeeper', /has data of mode kraft, KAFKA_MODE is "zookeeper"/)
    await folder.refuse('wipe', '', /make wipe destroys all records and topics.*CONFIRM=yes/)
    assert.match((await vm.run('ls /var/lib/kafka/log')).stdout, /gpu\.metrics\.v1-0/)
    await folder.make('wipe', 'CONFIRM=yes')
    assert.doesNotMatch((await vm.run('ls /var/lib/kafka/log')).stdout, /gpu\.metrics\.v1-0/)
    await folder.make('down')
    await folder.refuse('health', '', /WRONG kafka\.service is not active: make up/)
    assert.match((await vm.run('systemctl --failed --no-pager')).stdout, /^0 loaded units/m)
    assertAllRan('vm1-kafka', folder)
  })

  test('VM1 with ZooKeeper: it listens on this machine only, and the broker follows it', {
    skip: skipVm1,
  }, async (t) => {
    const { vm, folder } = await startVm1(t, 'zookeeper')
    await folder.make('setup', 'YES=1')
    await folder.make('up')
    assert.equal(await folder.make('list-topics'), '')
    assert.deepEqual(await listening(vm), ['10.0.1.197:9092', '127.0.0.1:2181'])
    const asked = (host: string) => `exec 3<>/dev/tcp/${host}/2181 && echo srvr >&3 && cat <&3`
    assert.match((await vm.run(asked('127.0.0.1'))).stdout, /Mode: standalone/)
    assert.notEqual((await vm.run(asked('10.0.1.197'))).status, 0)
    assert.match((await vm.run('ps -o user= -C java | sort')).stdout, /^kafka\nzookeep/)
    assert.match(await folder.make('ps'), /zookeeper\.service[\s\S]*active \(running\)[\s\S]*kafka\.service/)
    await folder.make('down')
  })

  test('VM2, VM3 and VM4: every target, from two producers to documents, and a restore', {
    skip: skipContainers,
  }, async (t) => {
    const kafka = await kafkaForTests({ owned: true })
    const { vm2, vm3, vm4, mongo, http } = await startContainers(t, kafka.bootstrap)

    // The store.
    await vm2.refuse('up', '', /There is no secrets\/keyfile yet: make setup/)
    await vm2.refuse('setup', '', /Nobody is here to ask: say YES=1/)
    await vm2.make('setup', 'YES=1')
    await vm2.make('up')
    await vm2.make('wait')
    assert.match(await vm2.make('ping'), /MongoDB \d.* answers in \d+ ms/)
    await assert.rejects(documentsOf(`mongodb://127.0.0.2:${mongo}/ca0?replicaSet=pertoken`), /auth/)
    await vm2.make('init-indexes')

    // The processor.
    await vm3.refuse('setup', '', /Nobody is here to ask: say YES=1/)
    assert.match(await vm3.make('setup', 'YES=1'), /make build of the project/)
    assert.match(await vm3.make('build'), /make build of the project/)
    await vm3.refuse('up', '', /There is no secrets\/mongo-password yet: make set-password/)
    await handOverPassword(vm2, vm3)
    await vm3.make('up')
    assert.match(await vm3.make('wait'), /is well/)
    assert.match(await vm3.make('health'), /"status":"ok","problems":\[\]/)
    assert.doesNotMatch(await logsOf(vm3), /Index|warn/)

    // The producers.
    await vm4.make('setup', 'YES=1')
    await vm4.make('build')
    await vm4.refuse(
      'up',
      'PRODUCERS=3 PRODUCER_2_HOST=gpu-1',
      /PRODUCERS is "3"[\s\S]*are both "gpu-1": expected two names/,
    )
    assert.match(await vm4.make('doctor'), /ok +log .*\n[\s\S]*ok +topics/)
    await vm4.make('up')
    await vm4.make('wait')
    assert.match(await vm4.make('health'), /^ok +producer-1 producer-2 run/)
    await vm4.make('restart')
    assert.match(await vm4.make('ps'), /producer-1[\s\S]*producer-2/)
    await vm4.make('logs')
    await vm4.make('down')
    await vm4.refuse('health', '', /WRONG producer-1 does not run/)
    const now = new Date().toISOString()
    const marked = `"ts":"${now}","host":"smoke","gpu_index":1023`
    const input = `{${marked},"price_per_hour_usd":0}\n{${marked},"model":"smoke","prompt_tokens":0,"completion_tokens":0}\n`
    await vm4.make('send', '', { input })

    // A backup with the processor at work, which waits meanwhile; more events; back to the backup: they come again.
    const reader = `reader:${(await vm2.make('password', 'LOGIN=reader')).trim()}`
    const readerUrl = `mongodb://${reader}@127.0.0.2:${mongo}/ca0?replicaSet=pertoken`
    const stored = async () => {
      await until('all events are stored', () => allIsStored(http))
      return documentsOf(readerUrl)
    }
    await stored()
    assert.match(await vm3.make('curl'), /"host":"smoke"|"slots"/)
    const backup = /\S+\.tar$/m.exec(await vm2.make('backup'))![0]
    await vm4.make('run-once', 'BATCH=3')
    const before = await stored()
    assert.match(await vm2.make('stats'), /users: pertoken \(pertoken\), reader \(read\)/)
    await vm2.refuse('restore', `FILE=${backup}`, /make restore destroys what.*CONFIRM=yes/)
    await vm2.refuse(
      'restore',
      `CONFIRM=yes FILE=${backup}`,
      /A processor is connected, from 127\.0\.0\.\d: stop it there/,
    )
    await vm3.make('down')
    await vm2.make('restore', `CONFIRM=yes FILE=${backup}`)
    const count = 'db.getSiblingDB("ca0").token_usage.countDocuments()'
    const restored = Number(await vm2.make('shell', '', { input: count }))
    await vm3.make('up')
    assert.equal(await stored(), before)
    assert.equal(restored, before - 3)

    // Other passwords: the processor has the old one until it is told.
    await vm2.make('rotate', 'LOGIN=root')
    await vm2.make('rotate', 'LOGIN=pertoken')
    await vm3.make('set-password', '', { input: await vm2.make('password') })
    await vm3.make('restart')
    await vm3.make('wait')
    assert.match(await vm3.make('doctor'), /ok +store[\s\S]*ok +hosts +3 in[\s\S]*ok +http/)
    assert.match(await vm3.make('ps'), /processor/)
    await vm3.refuse('pertoken', '', /make pertoken WORDS=/)
    assert.match(await vm3.make('pertoken', "WORDS='report --by model'"), /\$\/1M/)
    await vm2.make('restart')
    assert.match(await vm2.make('health'), /ok +pertoken can log in[\s\S]*ok +disk/)
    await vm2.make('logs')
    assert.match(await vm2.make('ps'), /mongodb/)
    await assertRights(readerUrl)

    await vm3.make('down')
    await vm2.make('down')
    assertAllRan('vm2-mongodb', vm2)
    assertAllRan('vm3-processor', vm3)
    assertAllRan('vm4-producers', vm4)
  })
})

/**
 * The source that PlantUML keeps in a picture: deflated, in an alphabet of its own
 * (https://plantuml.com/text-encoding).
 */
function sourceIn(svg: string): string {
  const [, packed = ''] = /<!--SRC=\[([\w-]+)\]-->/.exec(svg) ?? []
  const theirs = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_'
  const ours = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  const bytes = Buffer.from([...packed].map((letter) => ours[theirs.indexOf(letter)]).join(''), 'base64')
  return inflateRawSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }).toString('utf8').replace(/\n$/, '')
}

function processEnv(): Record<string, string> {
  return { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/root' }
}

let archived: Promise<string> | undefined

/** The stand-in of Kafka's archive, made once for all tests of this file. */
function kafkaArchive(): Promise<string> {
  archived ??= (async () => {
    const path = join(mkdtempSync(join(tmpdir(), 'pertoken-archive-')), 'kafka_2.13-3.9.1.tgz')
    after(() => rmSync(dirname(path), { recursive: true, force: true }))
    await writeKafkaArchive(path)
    return path
  })()
  return archived
}

/**
 * A machine with the project in /opt, and in its .env where the stand-in of Kafka's archive lies: behind a bad mirror.
 */
async function startVm1(t: TestContext, mode: 'kraft' | 'zookeeper') {
  const directory = temporaryDirectory(t)
  const root = copyOfDeploy(join(directory, 'pertoken'))
  const [vm, archive] = await Promise.all([startMachine({ name: 'vm1-kafka', address: '10.0.1.197' }), kafkaArchive()])
  t.after(() => vm.close())
  writeEnv(join(root, 'vm1-kafka'), {
    KAFKA_MODE: mode,
    KAFKA_SHA512: createHash('sha512').update(readFileSync(archive)).digest('hex').toUpperCase(),
    KAFKA_MIRRORS: 'file:///root/bad,file:///root/none,file:///root/good',
    KAFKA_HEAP: '512m',
  })
  await vm.put(join(directory, 'pertoken'), '/opt')
  await vm.put(archive, '/root/good/3.9.1')
  const bad = await vm.run(
    'mkdir -p /root/bad/3.9.1 && echo no >/root/other.tgz && cp /root/other.tgz /root/bad/3.9.1/kafka_2.13-3.9.1.tgz',
  )
  assert.equal(bad.status, 0, bad.stderr)
  return { vm, folder: folderAt('/opt/pertoken/deploy/vm1-kafka', vm.run) }
}

/** Where something listens on it. */
async function listening(vm: Awaited<ReturnType<typeof startMachine>>): Promise<string[]> {
  const { stdout } = await vm.run('ss -Hltn')
  return stdout
    .match(/[\d.]+:\d+(?=\]? )|(?<=\[::ffff:)[\d.]+\]:\d+/g)!
    .map((one) => one.replace(']', ''))
    .sort()
}

/** VM2 to VM4 as compose projects of their own, beside each other on this machine. */
async function startContainers(t: TestContext, bootstrap: string) {
  if (!(await hasImage(PERTOKEN_IMAGE))) await buildPertoken()
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-machines-'))
  const root = copyOfDeploy(directory)
  const projects: string[] = []
  // Not by `make down`, which a test may have found wrong.
  t.after(async () => {
    const left = (await podman('ps', '--all', '--format', '{{.Names}}')).split('\n')
    const ours = left.filter((name) => projects.some((project) => name.startsWith(`${project}_`)))
    if (ours.length > 0) await podman('rm', '--force', '--time', '0', ...ours)
    rmSync(directory, { recursive: true, force: true })
  })
  const [mongo, http] = [await freePort(), await freePort()]
  const values: Record<(typeof COMPOSED)[number] & string, Record<string, string>> = {
    'vm1-kafka': {},
    'vm2-mongodb': {
      MONGO_ADDRESS: '127.0.0.2',
      MONGO_PORT: String(mongo),
      MONGO_DATA: join(directory, 'data'),
      MONGO_BACKUPS: join(directory, 'backups'),
      MONGO_CACHE_GB: '0.25',
      MONGO_MEMORY: '1g',
      MONGO_IMAGE: await mongoImage(),
    },
    'vm3-processor': {
      KAFKA_BOOTSTRAP: bootstrap,
      MONGO_URL: `mongodb://pertoken@127.0.0.2:${mongo}/ca0?replicaSet=pertoken`,
      PORT: String(http),
    },
    'vm4-producers': { KAFKA_BOOTSTRAP: bootstrap, SLEEP_SEC: '0.05' },
  }
  const compose = await podmanCompose()
  const folderOf = (name: (typeof COMPOSED)[number]) => {
    writeEnv(join(root, name), values[name])
    const project = containerName(name)
    projects.push(project)
    const env = { ...processEnv(), ...containerEnv(), COMPOSE: compose, COMPOSE_PROJECT_NAME: project }
    return folderAt(join(root, name), runHere(env))
  }
  return { vm2: folderOf('vm2-mongodb'), vm3: folderOf('vm3-processor'), vm4: folderOf('vm4-producers'), mongo, http }
}

/** As docs/deployment.md has it, from the admin's machine, with an ssh that stays here. */
async function handOverPassword(vm2: Folder, vm3: Folder): Promise<void> {
  const project = join(vm2.path, '../..')
  const ssh = join(project, 'ssh-here')
  const lines = ['#!/bin/bash', 'while [[ $1 == -* ]]; do shift 2; done', 'shift', 'exec bash --norc -c "$*"', '']
  writeFileSync(ssh, lines.join('\n'), { mode: 0o755 })
  const words = `-C '${project}/deploy' SSH='${ssh}' DIR='${project}' inventory='${project}/deploy/inventory.example'`
  const command = 'make -s vm2-password | make -s vm3-set-password'
  assert.ok(readFileSync(join(ROOT, 'docs/deployment.md'), 'utf8').includes(command))
  const run = runHere(processEnv())
  const { status, stdout, stderr } = await run(`set -o pipefail; ${command.replaceAll('make -s', `make -s ${words}`)}`)
  assert.equal(status, 0, stdout + stderr)
  for (const [folder, target] of [
    [vm2, 'password'],
    [vm3, 'set-password'],
  ] as const)
    folder.ran.add(target)
}

async function logsOf(folder: Folder): Promise<string> {
  const { stdout, stderr } = await folder.try('logs')
  return stdout + stderr
}

async function documentsOf(url: string): Promise<number> {
  const client = new MongoClient(url, { serverSelectionTimeoutMS: 5000 })
  try {
    return await client.db().collection('token_usage').countDocuments()
  } finally {
    await client.close()
  }
}

/** Whether the processor has stored all that there is. */
async function allIsStored(port: number): Promise<boolean> {
  const answer = await fetch(`http://127.0.0.1:${port}/health`)
  const health = (await answer.json()) as { status: string; lag: number; open_steps: number }
  return health.status === 'ok' && health.lag === 0 && health.open_steps === 0
}

/** The reader reads and writes nothing; the indexes are those that the processor wants. */
async function assertRights(url: string): Promise<void> {
  const client = new MongoClient(url)
  try {
    const db = client.db()
    for (const name of ['gpu_metrics', 'token_usage']) {
      const indexes = (await db.collection(name).indexes()).map((index) => index.name)
      const wanted = COLLECTIONS[name]!.map(({ key }) => indexName(key))
      assert.deepEqual(indexes.filter((index) => wanted.includes(index!)).sort(), wanted.sort())
    }
    await assert.rejects(db.collection('token_usage').insertOne({ ts: 1 }), /not authorized/)
  } finally {
    await client.close()
  }
}
