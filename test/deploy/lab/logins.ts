// Who may log in to a host of hosts.ts, and logging in: users as `adduser` makes them, with a password, a key and the
// right to sudo or without, a real sshd, and the real ssh of another host, with a key or with a typed password.

import { join } from 'node:path'
import type { Finished, Host } from './hosts.ts'

export type User = {
  name: string
  password?: string
  /** The public key of whom it lets in. */
  key?: string
  /** May sudo: without a password, with it, or (left out) not at all. */
  sudo?: 'without password' | 'with password'
}

/** Makes a key pair on a host, and gives the public one. The private one is `directory/id`. */
export async function makeKey(host: Host): Promise<string> {
  await host.do(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'admin', '-f', join(host.directory, 'id')])
  return (await host.do(['cat', join(host.directory, 'id.pub')])).trim()
}

/** Makes the user (root is there already), whose home is `directory/NAME`. */
export async function makeUser(host: Host, { name, password, key, sudo }: User): Promise<void> {
  const home = homeOf(host, name)
  const script = `
    umask 022
    if [ "$NAME" = root ]; then sed -i "s|^root:.*|root:x:0:0::$FOLDER:/bin/bash|" /etc/passwd; mkdir "$FOLDER"
    else useradd -m -d "$FOLDER" -s /bin/bash "$NAME"; fi
    [ -z "$PASSWORD" ] || echo "$NAME:$PASSWORD" | chpasswd
    mkdir -m 700 "$FOLDER/.ssh"
    [ -z "$KEY" ] || echo "$KEY" >"$FOLDER/.ssh/authorized_keys"
    chown -R "$NAME" "$FOLDER"
    [ -z "$RIGHTS" ] || echo "$NAME ALL=(ALL) $RIGHTS" >"/etc/sudoers.d/$NAME"`
  const rights = sudo === undefined ? '' : sudo === 'with password' ? 'ALL' : 'NOPASSWD: ALL'
  await host.do(['sh', '-ec', script], {
    env: { NAME: name, FOLDER: home, PASSWORD: password ?? '', KEY: key ?? '', RIGHTS: rights },
  })
}

export function homeOf(host: Host, user: string): string {
  return join(host.directory, user)
}

/** Starts sshd with the host's own configuration; its log is `directory/sshd.log`. */
export async function startSshd(host: Host): Promise<void> {
  await host.start('sshd.log', ['/usr/sbin/sshd', '-D', '-e'])
  await host.do(['bash', '-c', 'until (exec 3<>/dev/tcp/127.0.0.1/22) 2>/dev/null; do sleep 0.05; done'])
}

/** Words of ssh that log in with the key of `makeKey`, and learn a host's key when they first see it. */
export function sshWithKey(from: Host): string[] {
  const id = join(from.directory, 'id')
  return ['ssh', '-F', 'none', ...options(from), '-o', `IdentityFile=${id}`, '-o', 'BatchMode=yes']
}

/** Logs in by a key (left out: `password`), runs `true` there, and says how that ended. */
export async function logIn(from: Host, to: Host, user: string, password?: string): Promise<Finished> {
  const whom = [`${user}@${to.addresses[0]}`, 'echo', 'logged-in']
  if (password === undefined) return from.run([...sshWithKey(from), ...whom])
  const asked = join(from.directory, 'answer.sh')
  await from.do(['sh', '-c', `printf '#!/bin/sh\\necho "$PASSWORD"\\n' >"$0" && chmod 755 "$0"`, asked])
  const typed = ['PreferredAuthentications=password,keyboard-interactive', 'PubkeyAuthentication=no']
  return from.run(['ssh', '-F', 'none', ...options(from), ...typed.flatMap((one) => ['-o', one]), ...whom], {
    env: { SSH_ASKPASS: asked, SSH_ASKPASS_REQUIRE: 'force', PASSWORD: password },
  })
}

function options(from: Host): string[] {
  const known = `UserKnownHostsFile=${join(from.directory, 'known_hosts')}`
  const all = ['StrictHostKeyChecking=accept-new', known, 'NumberOfPasswordPrompts=1', 'ConnectTimeout=10']
  return [...all, 'LogLevel=ERROR'].flatMap((one) => ['-o', one])
}
