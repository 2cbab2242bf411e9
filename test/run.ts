// Runs all tests in stages, quick ones first, each with as many files at a time as it stands: flows kill and pause
// servers and watch what happens within seconds, so they run alone; the others use both cores.

import { globSync, readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { finished } from 'node:stream/promises'
import { run } from 'node:test'
import { spec } from 'node:test/reporters'
import { inspect } from 'node:util'

/** Of one test. */
const TIMEOUT_MS = 300_000

const all = globSync('test/**/*.test.ts').sort()
const isFlow = (path: string) => path.startsWith('test/flows/')
const isDeployment = (path: string) => path.startsWith('test/deploy/')
const usesServers = (path: string) =>
  !isFlow(path) &&
  !isDeployment(path) &&
  (path.startsWith('test/servers/') || readFileSync(path, 'utf8').includes('servers/servers-for-tests'))
const stages = [
  {
    name: 'unit',
    files: all.filter((path) => !isFlow(path) && !isDeployment(path) && !usesServers(path)),
    concurrency: 2,
  },
  { name: 'contracts', files: all.filter(usesServers), concurrency: 2 },
  { name: 'flows', files: all.filter(isFlow), concurrency: 1 },
  { name: 'deploy', files: all.filter(isDeployment), concurrency: 2 },
]
const only = process.argv[2]
const failures: string[] = []
let failed = false
for (const { name, files, concurrency } of stages) {
  if (files.length === 0 || (only !== undefined && only !== name)) continue
  const startedMs = performance.now()
  process.stdout.write(`\n# ${name}: ${files.length} files\n`)
  const passed = await runStage(name, files, concurrency)
  const tookSeconds = ((performance.now() - startedMs) / 1000).toFixed(0)
  process.stdout.write(`# ${name}: ${passed ? 'passed' : 'FAILED'} in ${tookSeconds} s\n`)
  failed ||= !passed
}
// Once more at the very end: who reads the last screen of a long log sees what failed and why.
for (const failure of failures) process.stdout.write(`\n# FAILED ${failure}\n`)
process.exitCode = failed ? 1 : 0

async function runStage(stage: string, files: string[], concurrency: number): Promise<boolean> {
  const events = run({ files, concurrency, timeout: TIMEOUT_MS })
  // A run that breaks off has no summary.
  let passed = false
  events.on('test:summary', ({ file, success }) => {
    if (file === undefined) passed = success
  })
  events.on('test:fail', ({ name, file, line, todo, details: { error } }) => {
    if (todo !== undefined) return
    const { cause, failureType } = error as { cause?: unknown; failureType?: string }
    if (failureType === 'subtestsFailed') return
    const why = inspect(cause ?? error, { depth: 2, maxStringLength: 4000 })
    failures.push(`${stage}: ${name} (${relative('.', file ?? '')}:${line})\n${why}`)
  })
  const printed = events.compose(spec)
  printed.pipe(process.stdout, { end: false })
  await finished(printed)
  return passed
}
