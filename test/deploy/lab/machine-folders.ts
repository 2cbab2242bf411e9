// Folders of deploy/ (vm1-kafka, …) as somebody has them who has filled in .env: a copy, with other values where a test
// needs them, and a way to run the targets of its Makefile. The project around it is a stand-in whose `make build` says
// that it was asked: building is tested with the image.

import assert from 'node:assert/strict'
import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './containers.ts'
import { type Ran, type RunOptions, runToEnd } from './run-to-end.ts'

export const FOLDERS = ['vm1-kafka', 'vm2-mongodb', 'vm3-processor', 'vm4-producers'] as const
export type FolderName = (typeof FOLDERS)[number]

export type Folder = {
  readonly path: string
  /** Targets that were run. */
  readonly ran: Set<string>
  /** Runs a target with further words; gives what came of it. */
  try(target: string, words?: string, options?: RunOptions): Promise<Ran>
  /** Runs a target that has to succeed; gives its standard output. */
  make(target: string, words?: string, options?: RunOptions): Promise<string>
  /** Runs a target that has to fail, saying something; `status` is that of make: 2 for any. */
  refuse(target: string, words: string, says: RegExp): Promise<void>
}

/** Runs a line of bash where the folder is. */
export type Run = (line: string, options?: RunOptions) => Promise<Ran>

/** A copy of deploy/ in a project folder, as far as its Makefiles need one. */
export function copyOfDeploy(project: string): string {
  cpSync(join(ROOT, 'deploy'), join(project, 'deploy'), { recursive: true })
  writeFileSync(join(project, 'Makefile'), 'build setup:\n\t@echo "make $@ of the project"\n')
  return join(project, 'deploy')
}

/** Writes .env as the example is, with these values. */
export function writeEnv(folder: string, values: Readonly<Record<string, string>>): void {
  let text = readFileSync(join(folder, '.env.example'), 'utf8')
  for (const [name, value] of Object.entries(values)) {
    const line = new RegExp(`^(# )?${name}=.*$`, 'm')
    assert.match(text, line, `${folder}/.env.example has no ${name}`)
    text = text.replace(line, () => `${name}=${value}`)
  }
  writeFileSync(join(folder, '.env'), text)
}

export function folderAt(path: string, run: Run): Folder {
  const ran = new Set<string>()
  const folder: Folder = {
    path,
    ran,
    try(target, words = '', options = {}) {
      ran.add(target)
      return run(`make -s --no-print-directory -C '${path}' ${target} ${words}`, options)
    },
    async make(target, words, options) {
      const { status, stdout, stderr } = await folder.try(target, words, options)
      assert.equal(status, 0, `make ${target} ${words ?? ''} in ${path}: ${status}\n${stdout}\n${stderr}`)
      return stdout
    },
    async refuse(target, words, says) {
      const { status, stdout, stderr } = await folder.try(target, words)
      assert.equal(status, 2, `make ${target} ${words} in ${path} was done\n${stdout}`)
      assert.match(stdout + stderr, says)
    },
  }
  return folder
}

/** Runs here, in bash, with this environment. */
export function runHere(env: Record<string, string>): Run {
  return (line, options) => runToEnd('bash', ['--norc', '-c', line], { ...options, env })
}
