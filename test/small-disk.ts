// A disk that a test can fill: a tmpfs in a mount namespace of the one process that is started on it.

import { spawnSync } from 'node:child_process'
import type { TestContext } from 'node:test'

const UNSHARE = ['unshare', ...(process.getuid?.() === 0 ? [] : ['--map-root-user']), '--mount']

/**
 * Words to put before a command, which then runs in the same process with a file system of its own of so many MiB at
 * `directory`. Null, and the test is skipped, where no mount namespace may be made; never with CI=true.
 */
export function onSmallDisk(t: TestContext, directory: string, sizeMiB: number): string[] | null {
  const [command, ...rest] = UNSHARE
  if (process.env['CI'] !== 'true' && spawnSync(command!, [...rest, 'true']).status !== 0) {
    console.error('SKIPPED: no mount namespace may be made here')
    t.skip('no mount namespace may be made here')
    return null
  }
  const mount = `mount -t tmpfs -o size=${sizeMiB}m pertoken-test "$0" && exec "$@"`
  return [...UNSHARE, 'sh', '-c', mount, directory]
}
