// Every shell script of the repository and every recipe of its Makefiles, as make hands it to the shell, pass
// shellcheck.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const INSTALL = 'apt-get install -y --no-install-recommends shellcheck'
/** Targets that are made by a pattern. */
const BY_PATTERN: Record<string, string[]> = { deploy: ['vm1-up', 'vm2-setup', 'vm3-ping', 'vm4-wipe'] }

const skip = skipWithoutShellcheck()
const directory = mkdtempSync(join(tmpdir(), 'pertoken-recipes-'))
after(() => rmSync(directory, { recursive: true, force: true }))

function skipWithoutShellcheck(): string | false {
  if (spawnSync('shellcheck', ['--version']).status === 0) return false
  const reason = `shellcheck is not installed: run ${INSTALL}`
  if (process.env['CI'] === 'true') throw new Error(reason)
  console.error(`SKIPPED: ${reason}`)
  return reason
}

function shellcheck(...words: string[]): void {
  const { status, stdout, stderr } = spawnSync('shellcheck', ['-x', '-f', 'gcc', ...words], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  assert.equal(status, 0, `${stdout}${stderr}`)
}

/** Files of ours: not what is installed, built or ignored. */
function filesOf(...patterns: string[]): string[] {
  const folders = '{.ci,deploy,docs,examples,test}/**'
  return globSync(
    patterns.flatMap((pattern) => [pattern, `${folders}/${pattern}`]),
    { cwd: ROOT },
  ).sort()
}

test('every shell script passes', { skip }, () => {
  const scripts = filesOf('*').filter((path) => {
    if (!statSync(join(ROOT, path)).isFile()) return false
    return path.endsWith('.sh') || /^#!.*\b(ba|da)?sh\b/.test(readFileSync(join(ROOT, path), 'utf8').slice(0, 80))
  })
  assert.ok(scripts.includes('deploy/hardening/firewall.sh') && scripts.includes('.ci/run'), scripts.join(' '))
  shellcheck(...scripts)
})

test('every recipe of every Makefile passes', { skip }, () => {
  const makefiles = filesOf('Makefile')
  assert.ok(makefiles.includes('deploy/Makefile'))
  const recipes = makefiles.flatMap((makefile) =>
    targetsOf(makefile).map((target) => recipeOf(dirname(makefile), target)),
  )
  assert.ok(recipes.length > 20, `${recipes.length} recipes`)
  // SC2317: lines are shells of their own, so that what follows an exit is reached. SC2050: make put the constant
  // there.
  shellcheck('-e', 'SC2317,SC2050', ...recipes)
})

/** Names of targets of a Makefile and of what it includes from our folders. */
function targetsOf(makefile: string): string[] {
  const text = readFileSync(join(ROOT, makefile), 'utf8')
  const included = [...text.matchAll(/^include (\S+)$/gm)].map(([, path]) => join(ROOT, dirname(makefile), path!))
  const all = [text, ...included.filter((path) => existsSync(path)).map((path) => readFileSync(path, 'utf8'))].join(
    '\n',
  )
  const named = [...all.matchAll(/^([a-z][a-z0-9-]*)(?: [a-z0-9- ]+)?:(?!=)/gm)].map(([, name]) => name!)
  return [...new Set([...named, ...(BY_PATTERN[basename(dirname(makefile))] ?? [])])]
}

/** A file with what make would hand to the shell. */
function recipeOf(folder: string, target: string): string {
  const { MAKEFLAGS: _, MAKELEVEL: __, MFLAGS: ___, ...env } = process.env
  // A line that names $(MAKE) is run even so: by a shell that does nothing.
  const words = ['-n', '-C', join(ROOT, folder), '--no-print-directory', 'SHELL=/bin/true', target]
  const { status, stdout, stderr } = spawnSync('make', words, { encoding: 'utf8', env })
  assert.equal(status, 0, `make -n ${target} in ${folder}: ${stderr}`)
  const path = join(directory, `${folder.replaceAll('/', '-')}-${target}.sh`)
  writeFileSync(path, `#!/bin/bash\n${stdout}`)
  return path
}
