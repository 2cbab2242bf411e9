// deploy/docker-setup.sh in a container of its own, where apt-get, curl, gpg and docker are stand-ins that write down
// how they were called: it says what it will change and asks, changes only that, and a second run changes nothing.

import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { runTool } from '../servers/run-tool.ts'
import { containerName, podman, ROOT, skipWithoutContainers } from './lab/containers.ts'
import { BASE_IMAGE } from './lab/install.ts'

const skip = await skipWithoutContainers()
const KEY = '9DC858229FC7DD38854AE2D88D81803C0EBFCD88'

/** Installing Docker's packages brings a docker that knows compose and buildx, and the group. */
const STAND_INS = {
  'apt-get': `echo "apt-get $*" >>/calls
case "$*" in *docker-ce*) groupadd docker; printf '#!/bin/sh\\n' >/usr/local/bin/docker; chmod 755 /usr/local/bin/docker ;; esac`,
  curl: 'echo "curl $*" >>/calls; while [ "$1" != -o ]; do shift; done; echo key >"$2"',
  gpg: `echo "fpr:::::::::$KEY:"`,
}

const directory = mkdtempSync(join(tmpdir(), 'pertoken-docker-setup-'))
after(() => rmSync(directory, { recursive: true, force: true }))
for (const [name, text] of Object.entries(STAND_INS)) {
  writeFileSync(join(directory, name), `#!/bin/bash\n${text}\n`)
  chmodSync(join(directory, name), 0o755)
}

/** Runs lines of bash as root in a new container, with a user ada; then shows what was called. */
async function inContainer(key: string, ...lines: readonly string[]): Promise<string> {
  const script = ['exec 2>&1', 'useradd ada', 'touch /calls', 'set +e', ...lines, 'echo CALLS; cat /calls'].join('\n')
  const mounts = ['-v', `${directory}:/stand-ins:ro`, '-v', `${join(ROOT, 'deploy')}:/deploy:ro`]
  const env = ['-e', `KEY=${key}`, '-e', 'PATH=/stand-ins:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']
  const name = containerName('setup')
  return podman('run', '--rm', '--name', name, '--network', 'none', ...mounts, ...env, BASE_IMAGE, 'bash', '-c', script)
}

const RUN = '/deploy/docker-setup.sh ada; echo "exit $?"'

test('where nobody can be asked it says what it would do, and does nothing', { skip }, async () => {
  const said = await inContainer(KEY, RUN)
  assert.match(said, /installs docker-ce docker-ce-cli containerd\.io docker-compose-plugin docker-buildx-plugin/)
  assert.match(said, /adds ada to the group docker, whose members are as good as root/)
  assert.match(said, /Nobody is here to ask: say YES=1 to go on\nexit 2\nCALLS\n$/)
})

test('with YES=1 it installs by Docker’s signed packages and lets the user in; a second run changes nothing', {
  skip,
}, async () => {
  const look = ['cat /etc/apt/sources.list.d/docker.list', 'id -nG ada']
  const said = await inContainer(KEY, `YES=1 ${RUN}`, ...look, 'echo SECOND >>/calls', RUN)
  assert.match(said, /ada is in the group docker from the next login on[\s\S]*exit 0\n/)
  assert.match(said, /^deb \[arch=\w+ signed-by=\/etc\/apt\/keyrings\/docker\.asc\] \S+ bookworm stable$/m)
  assert.match(said, /^ada docker$/m)
  assert.match(said, /nothing to change\nexit 0\n/)
  const calls = said.slice(said.indexOf('CALLS'))
  assert.match(
    calls,
    /install .*docker-ce docker-ce-cli containerd\.io docker-compose-plugin docker-buildx-plugin\nSECOND\n$/,
  )
})

test('it takes no other key than Docker’s', { skip }, async () => {
  const said = await inContainer('0000', `YES=1 ${RUN}`, 'ls /etc/apt/sources.list.d /etc/apt/keyrings')
  assert.match(said, /is not 9DC858\w+: nothing was installed\nexit 1\n/)
  assert.doesNotMatch(said.slice(said.indexOf('exit 1')), /docker\.list|docker\.asc|docker-ce/)
})

test('a user that there is not is refused, and on another system it says where to look', { skip }, async () => {
  assert.match(
    await inContainer(KEY, '/deploy/docker-setup.sh bob; echo "exit $?"'),
    /There is no user bob[\s\S]*exit 2/,
  )
  const said = await inContainer(KEY, "echo 'ID=fedora' >/etc/os-release", `YES=1 ${RUN}`)
  assert.match(
    said,
    /on Debian and Ubuntu only: see https:\/\/docs\.docker\.com\/engine\/install\/[\s\S]*exit 1\nCALLS\n$/,
  )
})

test('make setup asks before it changes anything, and builds the image once Docker is there', { skip }, async () => {
  // Before this machine's own docker, if any: it lacks compose, or has all.
  writeFileSync(
    join(directory, 'docker'),
    '#!/bin/sh\n[ "$1 $HAS" != "compose nothing" ] || exit 1\necho "called: $*"\n',
  )
  chmodSync(join(directory, 'docker'), 0o755)
  const setup = (has: string) => {
    const env = {
      PATH: `${directory}:${process.env['PATH']}`,
      HAS: has,
      SUDO_USER: '',
      YES: '',
      MAKEFLAGS: '',
      MAKELEVEL: '',
    }
    return runTool('make', ['-C', ROOT, '--no-print-directory', 'setup', 'COMPOSE=docker compose'], { env })
  }
  await assert.rejects(setup('nothing'), /installs docker-compose-plugin [\s\S]*say YES=1 to go on/)
  assert.match(await setup('all'), /nothing to change\n(called: .*\n)*called: compose build processor\n$/)
})
