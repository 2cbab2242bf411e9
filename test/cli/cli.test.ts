// The command line as a user meets it: help, wrong words, wrong settings (all at once, exit code 2), masked secrets.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../src/cli/config.ts'
import { pertoken, temporaryDirectory } from '../flows/harness.ts'

test('help names every command, and every command has help', () => {
  const { status, stdout } = pertoken(['--help'], {})
  assert.equal(status, 0)
  const commands = [...stdout.matchAll(/^ {2}([a-z-]+) {2,}/gm)].map((match) => match[1]!)
  for (const name of ['up', 'processor', 'produce', 'replay', 'topics', 'dead-letters', 'doctor', 'config'])
    assert.ok(commands.includes(name), name)
  for (const name of commands) {
    const help = pertoken([name, '--help'], {})
    assert.equal(help.status, 0, name)
    assert.match(help.stdout, new RegExp(`^pertoken ${name}`))
  }
})

test('what a library has left open does not hold up the end', (t) => {
  const leaves = join(temporaryDirectory(t), 'leaves.mjs')
  writeFileSync(leaves, `import { createServer } from 'node:net'\ncreateServer().listen(0, '127.0.0.1')\n`)
  const help = pertoken(['--help'], { NODE_OPTIONS: `--import=${leaves}` })
  assert.equal(help.status, 0)
  assert.match(help.stdout, /Each has --help/)
  assert.equal(pertoken(['nonsense'], { NODE_OPTIONS: `--import=${leaves}` }).status, 2)
})

test('wrong words are all named at once, with exit code 2', () => {
  const cases: [string[], RegExp[]][] = [
    [['nonsense'], [/Unknown command "nonsense"/]],
    [
      ['up', '--prot', '1', '--nothing'],
      [/Unknown flag --prot/, /Unknown flag --nothing/],
    ],
    [['up', '--port', '99999'], [/PORT is "99999": expected an integer from 0 to 65535/]],
    [['up', '--port'], [/--port needs a value/]],
    [['replay'], [/Expected one FILE/]],
    [['replay', 'x.csv', '--speed', 'fast'], [/speed/]],
    [['topics', 'seek'], [/--to/]],
    [['dead-letters', 'list', '--reason', 'bad'], [/expected one of tombstone/]],
    [['produce'], [/GPU_SEED/]],
    [['config'], [/--print/]],
  ]
  for (const [words, expected] of cases) {
    const { status, stderr } = pertoken(words, { DATA_DIR: join(tmpdir(), 'pertoken-never-made') })
    assert.equal(status, 2, `${words.join(' ')}: ${stderr}`)
    for (const one of expected) assert.match(stderr, one)
  }
})

test('wrong settings are all named at once, each with the name, the value and what is allowed; exit code 2', () => {
  const env = {
    PORT: 'http',
    PRICE_PER_HOUR_USD: '-1',
    WINDOW_SECONDS: '0',
    MONGO_URL: 'localhost:27017',
    KAFKA_BOOTSTRAP: 'no-port',
    TOPIC_DEAD: 'gpu.metrics.v1',
    LOG_LEVEL: 'loud',
    KAFKA_SASL_USERNAME: 'me',
  }
  const { status, stderr } = pertoken(['processor'], env)
  assert.equal(status, 2)
  for (const [name, value] of Object.entries(env))
    assert.ok(stderr.includes(name) && stderr.includes(value), `${name} in: ${stderr}`)
})

test('--demo with external servers is refused; with --embedded they are ignored, and it says so', () => {
  const refused = pertoken(['up', '--demo'], { KAFKA_BOOTSTRAP: 'localhost:1' })
  assert.equal(refused.status, 2)
  assert.match(refused.stderr, /KAFKA_BOOTSTRAP is set/)
})

test('config --print shows value, unit, default and source, and masks secrets; flags win over environment over .env', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'pertoken-cli-'))
  t.after(() => rmSync(directory, { recursive: true }))
  writeFileSync(join(directory, '.env'), 'PORT=1111\nBATCH=7\nWINDOW_SECONDS=20\n')
  writeFileSync(join(directory, 'secret'), 'from-a-file\n')
  const env = {
    PORT: '2222',
    WINDOW_SECONDS: '25',
    MONGO_URL: 'mongodb://me:hunter2@db:27017/ca0',
    KAFKA_SASL_MECHANISM: 'plain',
    KAFKA_SASL_USERNAME: 'me',
    KAFKA_SASL_PASSWORD_FILE: join(directory, 'secret'),
  }
  const { status, stdout, stderr } = pertoken(['config', '--json', '--port', '3333'], env, directory)
  assert.equal(status, 0, stderr)
  const rows = new Map(
    (JSON.parse(stdout) as { name: string; value: unknown; source: string; unit: string | null }[]).map((row) => [
      row.name,
      row,
    ]),
  )
  const shownAs = (name: string) => [rows.get(name)?.value, rows.get(name)?.source]
  assert.deepEqual(shownAs('PORT'), [3333, 'flag'])
  assert.deepEqual(shownAs('WINDOW_SECONDS'), [25, 'environment'])
  assert.deepEqual(shownAs('BATCH'), [7, '.env'])
  assert.deepEqual(shownAs('PRICE_PER_HOUR_USD'), [0.85, 'default'])
  assert.deepEqual(shownAs('MONGO_URL'), ['mongodb://***@db:27017/ca0', 'environment'])
  assert.deepEqual(shownAs('KAFKA_SASL_PASSWORD'), ['***', 'file'])
  assert.equal(rows.get('WINDOW_SECONDS')?.unit, 's')
  assert.doesNotMatch(stdout, /hunter2|from-a-file/)
  const text = pertoken(['config', '--print'], env, directory).stdout
  assert.match(text, /WINDOW_SECONDS=25 s/)
  assert.doesNotMatch(text, /hunter2|from-a-file/)
})

test('an empty variable counts as unset', () => {
  const { config, problems } = loadConfig({ env: { PORT: '', KAFKA_BOOTSTRAP: '' }, envFile: '', flags: {} })
  assert.deepEqual(problems, [])
  assert.equal(config.PORT, 8080)
  assert.equal(config.KAFKA_BOOTSTRAP, null)
})
