// deploy/hardening/ssh.sh against a real sshd in a host of its own: afterwards a right password is refused and a key
// works, and where nobody could come in afterwards it changes nothing.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Host, type Network, skipWithoutHosts, startNetwork } from './lab/hosts.ts'
import { homeOf, logIn, makeKey, makeUser, startSshd } from './lab/logins.ts'
import { machinesAreMissing, startMachine } from './lab/machine.ts'

const DEPLOY = fileURLToPath(new URL('../../deploy', import.meta.url))
const SSH_SH = join(DEPLOY, 'hardening/ssh.sh')
const DROP_IN = '/etc/ssh/sshd_config.d/00-pertoken.conf'
const PASSWORD = 'the-right-password'
const skip = skipWithoutHosts()

function skipWithoutSystemd(): string | false {
  const reason = machinesAreMissing()
  if (reason !== false && process.env['CI'] === 'true') throw new Error(reason)
  if (reason !== false) console.error(`SKIPPED: ${reason}`)
  return reason
}

const isIn = ({ status, stdout }: Awaited<ReturnType<typeof logIn>>) => status === 0 && stdout === 'logged-in\n'

/**
 * What is wrong on a machine, and what ssh.sh says to it. The deployer has a key, a password and sudo unless said
 * otherwise.
 */
const REFUSALS: [name: string, prepare: (host: Host, key: string) => Promise<unknown>, expected: RegExp][] = [
  [
    'only root has a key',
    async (host, key) => {
      await makeUser(host, { name: 'root', key })
      await makeUser(host, { name: 'deployer', password: PASSWORD, sudo: 'with password' })
    },
    /nobody could come in afterwards/,
  ],
  [
    'the user with a key may not sudo',
    (host, key) => makeUser(host, { name: 'deployer', password: PASSWORD, key }),
    /deployer: has a key, and may not sudo/,
  ],
  [
    'sudo would ask for a password that there is not',
    (host, key) => makeUser(host, { name: 'deployer', key, sudo: 'with password' }),
    /deployer: has a key and may sudo, and has no password/,
  ],
  [
    'the key is no key',
    (host) => makeUser(host, { name: 'deployer', key: 'ssh-ed25519 AAAAcut', sudo: 'without password' }),
    /nobody could come in afterwards/,
  ],
  [
    'others may write to the home',
    async (host, key) => {
      await deployer(host, key)
      await host.do(['chmod', '777', homeOf(host, 'deployer')])
    },
    /deployer: has a key, and sshd does not believe it.*chmod go-w/,
  ],
  [
    'sshd lets in only root',
    async (host, key) => {
      await deployer(host, key)
      await configure(host, '10-users.conf', 'AllowUsers root')
    },
    /deployer: has a key, and is not among AllowUsers/,
  ],
  [
    'sshd takes no keys',
    async (host, key) => {
      await deployer(host, key)
      await configure(host, '10-keys.conf', 'PubkeyAuthentication no')
    },
    /it takes no keys/,
  ],
  [
    'sshd does not read its directory',
    async (host, key) => {
      await deployer(host, key)
      await host.do(['sed', '-i', '/^Include/d', '/etc/ssh/sshd_config'])
    },
    /has no effect: expected "Include/,
  ],
  [
    'a file before ours says otherwise',
    async (host, key) => {
      await deployer(host, key)
      await configure(host, '00-a.conf', 'PasswordAuthentication yes')
    },
    /has no effect: expected/,
  ],
  [
    'a Match block says otherwise',
    async (host, key) => {
      await deployer(host, key)
      await host.do(['sh', '-c', 'printf "Match User bob\\n  PasswordAuthentication yes\\n" >>/etc/ssh/sshd_config'])
    },
    /\/etc\/ssh\/sshd_config:\d+:\s+PasswordAuthentication yes/,
  ],
  [
    'sshd finds its configuration wrong already',
    async (host, key) => {
      await deployer(host, key)
      await configure(host, '10-typo.conf', 'PasswordAuthentification no')
    },
    /wrong before any change.*PasswordAuthentification/s,
  ],
]

function deployer(host: Host, key: string): Promise<void> {
  return makeUser(host, { name: 'deployer', password: PASSWORD, key, sudo: 'with password' })
}

function configure(host: Host, file: string, line: string): Promise<unknown> {
  return host.do(['sh', '-c', 'echo "$1" >"/etc/ssh/sshd_config.d/$0"', file, line])
}

let network: Network
after(() => network?.close())

/** The admin, one host for the good case, and one for each refusal. */
async function hosts(): Promise<Network> {
  const names = ['admin', 'server', ...REFUSALS.map((_, i) => `refusal${i}`)]
  network ??= await startNetwork(names.map((name, i) => ({ name, addresses: [`10.0.1.${i + 1}`, `fd00::${i + 1}`] })))
  return network
}

test('a right password is refused, a key works, root is refused, and a second run changes nothing', {
  skip,
}, async () => {
  const network = await hosts()
  const [admin, server] = [network.host('admin'), network.host('server')]
  const key = await makeKey(admin)
  await deployer(server, key)
  await makeUser(server, { name: 'root', key, password: PASSWORD })
  // As cloud images have it: a file of a later name turns passwords on.
  await configure(server, '50-cloud-init.conf', 'PasswordAuthentication yes')
  await startSshd(server)
  assert.ok(isIn(await logIn(admin, server, 'deployer', PASSWORD)), 'the password is right: it opens before')
  assert.ok(isIn(await logIn(admin, server, 'root')), 'root comes in by key before')

  assert.match(await server.do([SSH_SH]), /keys only: set/)
  const reloads = () => server.do(['grep', '-c', 'Received SIGHUP', `${server.directory}/sshd.log`])
  await server.do([
    'sh',
    '-c',
    'until grep -q "Received SIGHUP" "$0"; do sleep 0.05; done',
    `${server.directory}/sshd.log`,
  ])
  await server.do(['bash', '-c', 'until (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null; do sleep 0.05; done'])
  for (const user of ['deployer', 'root']) {
    const { status, stderr } = await logIn(admin, server, user, PASSWORD)
    assert.equal(status, 255, `${user} with the right password`)
    assert.match(stderr, /Permission denied \(publickey\)/)
  }
  assert.ok(isIn(await logIn(admin, server, 'deployer')), 'the key opens')
  assert.match((await logIn(admin, server, 'root')).stderr, /Permission denied/)

  const state = () => server.do(['sh', '-c', 'stat -c "%n %i %Y %Z" /etc/ssh/* /etc/ssh/sshd_config.d/*'])
  const before = await state()
  assert.match(await server.do([SSH_SH]), /nothing to change/)
  assert.equal(await state(), before)
  assert.equal((await reloads()).trim(), '1')

  const asUser = await server.run(['setpriv', '--reuid', '65534', '--clear-groups', SSH_SH])
  assert.equal(asUser.status, 1)
  assert.match(asUser.stderr, /only root/)
})

test('under systemd: sshd is reloaded and lets a key in, and the firewall is there after the next boot', {
  skip: skip || skipWithoutSystemd(),
}, async () => {
  const machine = await startMachine({ name: 'kafka', address: '10.0.1.197' })
  const run = async (line: string) => {
    const { status, stdout, stderr } = await machine.run(line)
    assert.equal(status, 0, `${line}: ${stderr}${stdout}`)
    return stdout
  }
  try {
    await machine.put(DEPLOY, '/srv')
    const key = 'ssh-keygen -q -t ed25519 -N "" -f /root/id && cp /root/id.pub ~deployer/.ssh/authorized_keys'
    await run(
      `useradd -m -s /bin/bash deployer && mkdir -m 700 ~deployer/.ssh && ${key} && chown -R deployer ~deployer`,
    )
    await run('chmod 700 ~deployer && echo "deployer ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/deployer')
    for (const unit of ['ssh.service', 'ssh.socket']) {
      await run(`systemctl stop ssh.service; systemctl start ${unit}`)
      assert.match(await run('deploy/hardening/ssh.sh'), /keys only: set/)
      const login = 'ssh -i /root/id -o StrictHostKeyChecking=accept-new -o BatchMode=yes deployer@10.0.1.197'
      assert.match(await run(`${login} id -un`), /deployer/)
      assert.match(await run('deploy/hardening/ssh.sh'), /nothing to change/)
      await run(`rm ${DROP_IN}`)
    }
    await run('deploy/hardening/firewall.sh --inventory deploy/inventory.example')
    assert.equal(await run('systemctl is-enabled ufw.service'), 'enabled\n')
    assert.match(await run('deploy/hardening/firewall.sh --inventory deploy/inventory.example'), /nothing to change/)
  } finally {
    await machine.close()
  }
})

for (const [i, [name, prepare, expected]] of REFUSALS.entries()) {
  test(`refuses, and changes nothing: ${name}`, { skip }, async () => {
    const network = await hosts()
    const host = network.host(`refusal${i}`)
    const key = (await host.do(['cat', '/etc/ssh/ssh_host_ed25519_key.pub'])).trim()
    await prepare(host, key)
    const files = () => host.do(['sh', '-c', 'cd /etc/ssh; find . | sort; cat sshd_config; cat sshd_config.d/* || :'])
    const before = await files()
    const { status, stderr } = await host.run([SSH_SH])
    assert.match(stderr, expected)
    assert.equal(status, 1)
    assert.equal(await files(), before)
    assert.equal((await host.run(['test', '-e', DROP_IN])).status, 1)
  })
}
