// The published package in a temporary directory: compiled as `make dist` does it, with what package.json lists and no
// sources, so that bin/pertoken.js takes dist/. The dependencies are those of the repository.

import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const ROOT = new URL('../..', import.meta.url).pathname

export interface PertokenPackage {
  directory: string
  bin: string
  remove(): void
}

export function buildPackage(): PertokenPackage {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-package-'))
  const remove = () => rmSync(directory, { recursive: true, force: true })
  const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { files: string[] }
  const sources = ['src', 'tsconfig.json']
  try {
    // dist is built here; the one of the repository may be of other sources.
    for (const name of [...files.filter((file) => file !== 'dist'), 'package.json', ...sources])
      if (existsSync(join(ROOT, name))) cpSync(join(ROOT, name), join(directory, name), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
    execFileSync('npm', ['run', '--silent', 'build'], { cwd: directory, stdio: 'inherit' })
    for (const name of sources) rmSync(join(directory, name), { recursive: true })
  } catch (error) {
    remove()
    throw error
  }
  return { directory, bin: join(directory, 'bin/pertoken.js'), remove }
}
