// The package works where it is installed: packed, installed in an empty folder with nothing of the repository around
// it, and run there; the demo shows priced models and a GPU within a minute.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { startScript, temporaryDirectory, until } from './harness.ts'

const ROOT = new URL('../..', import.meta.url).pathname

test('packed, installed in an empty folder and run there, it serves the demo', async (t) => {
  const directory = temporaryDirectory(t)
  execFileSync('npm', ['run', '--silent', 'build'], { cwd: ROOT, stdio: 'inherit' })
  const packed = execFileSync('npm', ['pack', '--silent', '--pack-destination', directory], {
    cwd: ROOT,
    encoding: 'utf8',
  }).trim()
  writeFileSync(join(directory, 'package.json'), '{"name":"elsewhere","private":true}')
  const install = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', `./${packed}`], {
    cwd: directory,
    encoding: 'utf8',
  })
  assert.equal(install.status, 0, install.stderr)
  const installed = join(directory, 'node_modules/pertoken')
  assert.ok(!readdirSync(installed).includes('src'), 'no sources in the package')
  const version = execFileSync(process.execPath, [join(installed, 'bin/pertoken.js'), '--version'], {
    encoding: 'utf8',
  })
  assert.match(version, /^\d+\.\d+\.\d+\n$/)

  const env = { DATA_DIR: join(directory, 'data') }
  const service = await (
    await startScript(t, [join(directory, 'node_modules/.bin/pertoken'), 'up', '--demo'], env, directory)
  ).ready()
  assert.match(service.output, /look at http:\/\/localhost:\d+/)
  const live = await until('the live view has models with a price', async () => {
    const view = await service.json<{ models: { model: string; cost_per_token: number | null }[] }>('/api/v1/live')
    return view.models.length > 0 && view.models.every((one) => (one.cost_per_token ?? 0) > 0) ? view : undefined
  })
  assert.ok(live.models.length >= 2)
  const info = await service.json<{ name: string; utilization: number }>('/gpu/info')
  assert.equal(typeof info.name, 'string')
  const page = await service.get('/')
  assert.match(await page.text(), /<title>.*pertoken/i)
  assert.equal(await service.stop(), 0)
})

test('on a Node that is too old it says what to do', (t) => {
  const directory = temporaryDirectory(t)
  writeFileSync(
    join(directory, 'old.mjs'),
    "Object.defineProperty(process.versions, 'node', { value: '20.20.2' })\nawait import(process.argv[2])\n",
  )
  const { status, stderr } = spawnSync(process.execPath, [join(directory, 'old.mjs'), join(ROOT, 'bin/pertoken.js')], {
    encoding: 'utf8',
  })
  assert.equal(status, 2)
  assert.match(stderr, /needs Node 24/)
})
