// deploy/hardening/firewall.sh on hosts of namespaces with a real ufw: what it sets, that a second run changes nothing,
// what it refuses, and that it is the same out of cloud-init's user data. The whole network's test is hosts.test.ts.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { type Host, type Network, skipWithoutHosts, startNetwork } from './lab/hosts.ts'
import { makeKey, makeUser, sshWithKey, startSshd } from './lab/logins.ts'

const DEPLOY = fileURLToPath(new URL('../../deploy/', import.meta.url))
const FIREWALL = join(DEPLOY, 'hardening/firewall.sh')
const FOUR = `vm1 kafka 10.0.1.197
vm2 mongodb 10.0.1.86
vm3 processor 10.0.1.112
vm4 producers 10.0.1.140
admin 10.0.1.7
`
const directory = mkdtempSync(join(tmpdir(), 'pertoken-inventory-'))
after(() => rmSync(directory, { recursive: true, force: true }))

function inventoryOf(text: string): string {
  const path = join(directory, `inventory${inventories++}`)
  writeFileSync(path, text)
  return path
}
let inventories = 0

/**
 * A script's end, as a user who sees no firewall, as on a fresh machine, but may read the checkout wherever it lies.
 */
function asNobody(...script: string[]): { status: number | null; stdout: string; stderr: string } {
  const nobody = ['setpriv', '--reuid=65534', '--inh-caps=+dac_read_search', '--ambient-caps=+dac_read_search']
  const [command, ...words] = [...(process.getuid?.() === 0 ? nobody : []), 'bash', ...script]
  return spawnSync(command!, words, { encoding: 'utf8', timeout: 30_000 })
}

/** The rules of a dry run: [port, source]. */
function rulesOf(inventory: string, machine: string): [string, string][] {
  const { status, stdout, stderr } = asNobody(FIREWALL, '--dry-run', '--machine', machine, '--inventory', inventory)
  assert.equal(status, 0, stderr)
  const rule = /^ufw allow from (\S+) to any port (\d+) proto tcp comment pertoken$/
  const lines = stdout.trim().split('\n')
  const rules = lines.filter((line) => rule.test(line))
  // The rules, that for 22 first, come before anything is closed.
  assert.deepEqual(lines, [
    "sed -i 's/^IPV6=.*/IPV6=yes/' /etc/default/ufw",
    ...rules,
    'ufw default deny incoming',
    'ufw default allow outgoing',
    'ufw --force enable',
  ])
  return rules.map((line) => rule.exec(line)!.slice(1).reverse() as [string, string])
}

describe('the rules of an inventory', () => {
  const admin = ['22', '10.0.1.7']
  const rows: [name: string, inventory: string, machine: string, rules: string[][]][] = [
    ['VM1', FOUR, 'vm1', [admin, ['9092', '10.0.1.112'], ['9092', '10.0.1.140']]],
    ['VM2', FOUR, 'vm2', [admin, ['27017', '10.0.1.112']]],
    ['VM3', FOUR, 'vm3', [admin]],
    ['VM3 with http', `${FOUR}http open`, 'vm3', [admin, ['8080', '10.0.1.7']]],
    ['VM4', FOUR, 'vm4', [admin]],
    ['VM1 of three', FOUR.replace(/vm4.*/, 'vm4 processor 10.0.1.112'), 'vm1', [admin, ['9092', '10.0.1.112']]],
    ['VM3 of three', FOUR.replace(/vm4.*/, 'vm4 processor 10.0.1.112'), 'vm3', [admin]],
    [
      'two admins, one a network, one over IPv6, and http',
      `${FOUR.replace('10.0.1.7\n', '192.0.2.0/24 # the office')}\r\nadmin 2001:db8::/48\nhttp open\n`,
      'vm4',
      [
        ['22', '192.0.2.0/24'],
        ['22', '2001:db8::/48'],
      ],
    ],
    [
      'IPv6 among the machines',
      'vm1 a fd00::1\nvm2 b fd00::2\nvm3 c fd00::3\nvm4 d fd00::4 root@d.example\nadmin 10.0.1.7',
      'vm2',
      [admin, ['27017', 'fd00::3']],
    ],
  ]
  for (const [name, text, machine, rules] of rows) {
    test(name, () => assert.deepEqual(rulesOf(inventoryOf(text), machine), rules))
  }

  test('the example is right', () => {
    const { status, stdout } = asNobody(join(DEPLOY, 'inventory.sh'), join(DEPLOY, 'inventory.example'))
    assert.equal(status, 0)
    assert.match(stdout, /is right: 4 machines/)
  })

  test('every mistake of an inventory is said with its line, and nothing is done', () => {
    const wrong: [line: string, said: RegExp | null][] = [
      ['vm1 kafka', /vm1 has 1 values: expected vm1 NAME ADDRESS \[LOGIN\]/],
      ['vm2 Mongo_DB 10.0.1.86', /vm2 has the name "Mongo_DB": expected a host name of small letters/],
      ['vm3 processor 10.0.1.312', /vm3 has the address "10.0.1.312": expected an IPv4 or IPv6 address/],
      ['vm3 other 10.0.1.113', /vm3 is there twice/],
      ['vm4 producers 10.0.1.86', /vm4 has the address of vm2: expected another, only vm3 and vm4 may be one machine/],
      ['vm5 more 10.0.1.141', /"vm5" is not known: expected vm1, vm2, vm3, vm4, admin or http/],
      ['admin 203.0.113.7/33', /expected at most 32 bits behind the \//],
      ['admin 203.0.113.7/24', /goes on after 24 bits: expected the network's first address/],
      ['admin 0.0.0.0/0', /which is everybody: expected where you log in from/],
      ['admin office.example', /admin is "office.example": expected an IPv4 or IPv6 address or network/],
      ['admin 10.0.1.7 10.0.1.8', /admin has 2 values: expected admin ADDRESS or admin NETWORK\/BITS, one a line/],
      ['http yes', /http is "yes": expected open or closed/],
      ['# a comment is none', null],
    ]
    const path = inventoryOf(wrong.map(([line]) => line).join('\n'))
    const { status, stdout, stderr } = asNobody(FIREWALL, '--dry-run', '--machine', 'vm1', '--inventory', path)
    assert.equal(status, 2)
    assert.equal(stdout, '')
    const said = stderr.trim().split('\n')
    assert.equal(said.pop(), 'Cannot set the firewall: the inventory is wrong')
    const expected = wrong.flatMap(([, text], i) => (text === null ? [] : [{ start: `${path}:${i + 1}: `, text }]))
    assert.equal(said.length, expected.length, stderr)
    for (const [i, { start, text }] of expected.entries()) {
      assert.ok(said[i]!.startsWith(start), said[i]!)
      assert.match(said[i]!, text)
    }
  })

  const single: [line: string, said: RegExp][] = [
    ['vm3 c 127.0.0.1', /expected one by which other machines reach it/],
    ['vm3 c fe80::1', /expected one by which other machines reach it/],
    ['vm3 c fd00::1', /vm3 has an IPv6 address, and a machine before it an IPv4 one/],
    ['vm3 c 1::2::3', /expected an IPv4 or IPv6 address/],
    ['vm3 c 010.0.1.112', /expected an IPv4 or IPv6 address/],
    ['vm3 producers 10.0.1.112', /either the name or the address in common: expected both \(one machine\) or none/],
    ['vm3 kafka 10.0.1.112', /vm3 has the name of vm1/],
    ['vm3 c 10.0.1.112 -oProxyCommand=x', /vm3 has the login "-oProxyCommand=x"/],
    ['', /:5: vm3 is missing: expected a line vm3 NAME ADDRESS/],
  ]
  for (const [line, said] of single) {
    test(`an inventory with "${line}" for VM3 is refused`, () => {
      // At the end, so that it is compared with all others.
      const path = inventoryOf(`${FOUR.replace(/vm3.*\n/, '')}${line}`)
      const { status, stderr } = asNobody(join(DEPLOY, 'inventory.sh'), path)
      assert.equal(status, 2)
      assert.match(stderr, said)
      assert.equal(stderr.trim().split('\n').length, 1, stderr)
    })
  }
})

describe('on a machine', { skip: skipWithoutHosts() }, () => {
  let network: Network
  let kafka: Host
  let admin: Host
  before(async () => {
    network = await startNetwork([
      { name: 'kafka', addresses: ['10.0.1.197', 'fd00::197'] },
      { name: 'cloud', addresses: ['10.0.1.86', 'fd00::86'] },
      { name: 'admin', addresses: ['10.0.1.7', 'fd00::7'] },
    ])
    kafka = network.host('kafka')
    admin = network.host('admin')
  })
  after(() => network?.close())

  const rules = async (host: Host) =>
    (await host.do(['ufw', 'show', 'added'])).split('\n').flatMap((line) => {
      const [, source, port] = /^ufw allow from (\S+) to any port (\d+) proto tcp comment 'pertoken'$/.exec(line) ?? []
      return source === undefined ? (line.startsWith('ufw ') ? [line] : []) : [`${port} ${source}`]
    })

  test('who would lock himself out is refused, and nothing is changed', async () => {
    await makeUser(kafka, { name: 'deployer', key: await makeKey(admin), sudo: 'without password' })
    await startSshd(kafka)
    const inventory = inventoryOf(FOUR.replace('admin 10.0.1.7', 'admin 10.0.1.8'))
    const command = ['sudo', FIREWALL, '--inventory', inventory]
    const { status, stderr } = await admin.run([...sshWithKey(admin), 'deployer@10.0.1.197', ...command])
    assert.equal(status, 1)
    assert.match(
      stderr,
      /you are logged in from 10\.0\.1\.7, and the inventory's admin is 10\.0\.1\.8: you would lock yourself out/,
    )
    assert.match(await kafka.do(['ufw', 'status']), /inactive/)
    assert.deepEqual(await rules(kafka), [])
  })

  test('it finds which machine it is on, sets the rules over both families, and a second run changes nothing', async () => {
    await kafka.do(['sed', '-i', 's/^IPV6=.*/IPV6=no/', '/etc/default/ufw'])
    const inventory = inventoryOf(`${FOUR}admin FD00:0::7\n`)
    const login = [...sshWithKey(admin), 'deployer@10.0.1.197', 'sudo', FIREWALL, '--inventory', inventory]
    assert.match(await admin.do(login), /Firewall of vm1 \(kafka\): set/)
    const expected = ['22 10.0.1.7', '22 fd00::7', '9092 10.0.1.112', '9092 10.0.1.140']
    assert.deepEqual((await rules(kafka)).sort(), expected)
    assert.match(await kafka.do(['ufw', 'status', 'verbose']), /Status: active.*deny \(incoming\), allow \(outgoing\)/s)
    for (const tables of ['iptables-save', 'ip6tables-save'])
      assert.match(await kafka.do([tables]), /^:INPUT DROP/m, tables)
    const state = () =>
      kafka.do([
        'sh',
        '-c',
        'iptables-save | grep -v "^#"; ip6tables-save | grep -v "^#"; stat -c "%n %i %Z" /etc/ufw/* /etc/default/ufw',
      ])
    const counters = (text: string) => text.replaceAll(/\[\d+:\d+\]/g, '')
    const once = counters(await state())
    assert.match(await admin.do(login), /nothing to change/)
    assert.equal(counters(await state()), once)
  })

  test('a machine that moved: its old rule goes, its new one comes', async () => {
    const inventory = inventoryOf(FOUR.replace('10.0.1.140', '10.0.1.141'))
    const said = await kafka.do([FIREWALL, '--inventory', inventory])
    assert.match(said, /ufw delete allow from 10\.0\.1\.140 to any port 9092 proto tcp/)
    assert.deepEqual((await rules(kafka)).sort(), ['22 10.0.1.7', '9092 10.0.1.112', '9092 10.0.1.141'])
  })

  test('rules of somebody else are refused, and deleted with --replace', async () => {
    const inventory = inventoryOf(FOUR)
    const others = [
      'ufw allow 80,443/tcp',
      "ufw allow in on eth0 from 10.0.1.0/24 comment 'a b'",
      'ufw route allow in on eth0',
    ]
    for (const other of others) await kafka.do(['sh', '-c', other])
    const { status, stderr } = await kafka.run([FIREWALL, '--inventory', inventory])
    assert.equal(status, 1)
    assert.match(stderr, /not of the table, and nothing else may be open: delete them with --replace/)
    assert.equal((await rules(kafka)).length, 3 + others.length)
    await kafka.do([FIREWALL, '--inventory', inventory, '--replace'])
    assert.deepEqual((await rules(kafka)).sort(), ['22 10.0.1.7', '9092 10.0.1.112', '9092 10.0.1.140'])
  })

  test('a machine that the inventory does not name is left alone', async () => {
    const { status, stderr } = await admin.run([FIREWALL, '--inventory', inventoryOf(FOUR)])
    assert.equal(status, 1)
    assert.match(stderr, /no machine of the inventory has an address of this one/)
    assert.match(await admin.do(['ufw', 'status']), /inactive/)
  })

  test('user data for cloud-init set the same at the first start, and hold no private key', async () => {
    const cloud = network.host('cloud')
    const [inventory, out] = [inventoryOf(FOUR), join(admin.directory, 'user-data')]
    const make = ['make', '-s', '-C', DEPLOY, `inventory=${inventory}`, `out=${out}`, 'cloud-init']
    const id = join(admin.directory, 'id')
    await admin.do([...make, `key=${id}.pub`])
    for (const machine of ['vm1', 'vm2', 'vm3', 'vm4']) {
      const text = await admin.do(['cat', join(out, `${machine}.yaml`)])
      assert.ok(text.length < 16_384, `EC2 takes 16 KB of user data: ${machine} has ${text.length}`)
      assert.match(text, /^#cloud-config\n/)
    }
    const wrong = await admin.run([...make, `key=${id}`])
    assert.match(wrong.stderr, /holds no public key/)
    assert.equal(wrong.stdout, '')

    const data = parse(await admin.do(['cat', join(out, 'vm2.yaml')])) as UserData
    assert.deepEqual([data.hostname, data.ssh_pwauth, data.disable_root], ['mongodb', false, true])
    await makeUser(cloud, { name: 'debian', key: data.ssh_authorized_keys[0]!, sudo: 'without password' })
    for (const { path, permissions, content } of data.write_files) {
      const write = 'mkdir -p "$(dirname "$0")" && base64 -d | gunzip >"$0" && chmod "$1" "$0"'
      await cloud.do(['sh', '-ec', write, path, permissions], { input: content })
    }
    for (const command of data.runcmd) await cloud.do(command)
    assert.deepEqual((await rules(cloud)).sort(), ['22 10.0.1.7', '27017 10.0.1.112'])
    assert.match(await cloud.do(['sshd', '-T']), /^passwordauthentication no$/m)
  })
})

/** The parts of cloud-init's user data that are used here. */
type UserData = {
  hostname: string
  ssh_pwauth: boolean
  disable_root: boolean
  ssh_authorized_keys: string[]
  write_files: { path: string; permissions: string; encoding: 'gz+b64'; content: string }[]
  runcmd: string[][]
}
