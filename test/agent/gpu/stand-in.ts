// Compiles the stand-in for NVIDIA's library with gcc and writes what it shows. Without gcc the tests that need it are
// skipped, loudly; with CI=true they fail.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'

export type Variant = 'OLD_DRIVER' | 'NOT_NVML'

export interface StandIn {
  /** For the options of a test: false, or why it cannot run. */
  readonly skip: string | false
  /** A folder for the test file, removed after it. */
  readonly directory: string
  /** Path of the library; compiled once. */
  library(variant?: Variant): string
  /** Replaces what the library shows: lines as its source explains. */
  show(...settings: string[]): void
}

export function standInForTests(): StandIn {
  const skip = skipWithoutGcc()
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-gpu-'))
  after(() => rmSync(directory, { recursive: true, force: true }))
  const settings = join(directory, 'settings')
  process.env['NVML_STAND_IN'] = settings
  const compiled = new Map<string, string>()
  return {
    skip,
    directory,
    library(variant) {
      const name = `libnvidia-ml-${variant ?? 'stand-in'}.so`
      if (!compiled.has(name)) compiled.set(name, compileStandIn(join(directory, name), variant))
      return compiled.get(name)!
    },
    show(...lines) {
      // Replaced as a whole: the library may read it at any moment.
      writeFileSync(`${settings}.new`, `${lines.join('\n')}\n`)
      renameSync(`${settings}.new`, settings)
    },
  }
}

/** Compiles it with gcc; answers the path. */
export function compileStandIn(output: string, variant?: Variant): string {
  const source = new URL('nvml-stand-in.c', import.meta.url).pathname
  const flags = ['-shared', '-fPIC', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror']
  execFileSync('gcc', [...flags, ...(variant === undefined ? [] : [`-D${variant}`]), '-o', output, source])
  return output
}

function skipWithoutGcc(): string | false {
  try {
    execFileSync('gcc', ['--version'], { stdio: 'ignore' })
    return false
  } catch (error) {
    if (process.env['CI'] === 'true') throw error
    const reason = 'gcc is not installed, which compiles the stand-in for NVML: run apt-get install gcc'
    console.error(`SKIPPED: ${reason}`)
    return reason
  }
}
