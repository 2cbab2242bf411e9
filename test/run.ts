// Runs all tests in stages, quick ones first, each with as many files at a time as it stands: flows kill and pause servers and
// watch what happens within seconds, so they run alone; the others use both cores.

import { spawnSync } from 'node:child_process'
import { globSync, readFileSync } from 'node:fs'

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
let failed = false
for (const { name, files, concurrency } of stages) {
  if (files.length === 0 || (only !== undefined && only !== name)) continue
  const startedMs = performance.now()
  process.stdout.write(`\n# ${name}: ${files.length} files\n`)
  const args = [
    '--test',
    `--test-concurrency=${concurrency}`,
    '--test-timeout=300000',
    '--test-reporter=spec',
    ...files,
  ]
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' })
  process.stdout.write(
    `# ${name}: ${status === 0 ? 'passed' : 'FAILED'} in ${((performance.now() - startedMs) / 1000).toFixed(0)} s\n`,
  )
  failed ||= status !== 0
}
process.exit(failed ? 1 : 0)
