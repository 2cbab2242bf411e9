// House rules as a test: who may import what, no cycles, no clock or randomness in the domain, no barrels or default
// exports, every file says what it is, generated files are current. What prose may say is in docs.test.ts.

import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import { GpuSampleSchema, TokenUsageSchema } from '../src/domain/events/event.ts'

const sources = globSync('src/**/*.ts').sort()
const read = (path: string) => readFileSync(path, 'utf8')

interface Import {
  from: string
  target: string
}

/** All imports and re-exports of a file; relative ones as paths from the root. */
function importsOf(path: string): Import[] {
  const found = [
    ...read(path).matchAll(/^(?:import|export)\s[^'"]*?from\s+['"]([^'"]+)['"]|^import\s+['"]([^'"]+)['"]/gm),
  ]
  return found.map((match) => {
    const name = (match[1] ?? match[2])!
    return { from: path, target: name.startsWith('.') ? normalize(join(dirname(path), name)) : name }
  })
}

const allImports = sources.flatMap(importsOf)
const areaOf = (path: string) => path.split('/')[1]!

/**
 * What the files of each room (a folder of src/) may import of the other rooms, beside their own. A name covers the
 * files directly in that folder, `NAME/**` what lies below it as well, a path one file. Ports are files, not rooms.
 */
const LOG_PORT = 'log/event-log.ts'
const STORE_PORTS = ['store/event-store.ts', 'store/ledger-store.ts']
const ROOMS: Record<string, readonly string[]> = {
  runtime: [],
  sqlite: [],
  'domain/events': [],
  'domain/prices': ['domain/events'],
  'domain/live': ['domain/events'],
  'domain/fleet': ['domain/events'],
  'domain/ledger': ['domain/events', 'domain/prices'],
  log: [],
  'log/kafka': ['log', 'log/kafka/membership', 'runtime'],
  'log/kafka/membership': ['log', 'log/kafka', 'runtime'],
  'log/sqlite': ['log', 'runtime', 'sqlite'],
  store: ['domain/**', LOG_PORT],
  'store/mongo': ['domain/**', 'store', 'store/mongo/**', LOG_PORT],
  'store/mongo/reading': ['domain/**', 'store', 'store/mongo'],
  'store/mongo/events': ['domain/**', 'store', 'store/mongo', 'store/mongo/reading', LOG_PORT],
  'store/mongo/ledger': ['domain/**', 'store', 'store/mongo', 'store/mongo/reading', 'store/mongo/events'],
  'store/sqlite': ['domain/**', 'store', 'sqlite', LOG_PORT],
  report: ['domain/ledger', 'domain/live', 'domain/prices'],
  processor: ['domain/events', 'domain/fleet', 'domain/ledger', 'runtime', ...STORE_PORTS],
  'processor/prices': ['domain/**', ...STORE_PORTS],
  'processor/ingest': ['domain/**', 'processor', 'processor/prices', 'runtime', LOG_PORT, ...STORE_PORTS],
  'processor/ledger': ['domain/**', 'processor', 'processor/prices', 'runtime', ...STORE_PORTS],
  'processor/recompute': ['domain/**', 'processor', 'processor/prices', 'processor/ledger', ...STORE_PORTS],
  'processor/cost': [
    'domain/fleet',
    'domain/ledger',
    'domain/prices',
    'report',
    'processor/recompute',
    LOG_PORT,
    ...STORE_PORTS,
  ],
  producers: ['domain/events', 'domain/prices/schema-errors.ts', LOG_PORT],
  'agent/exposition': [],
  'agent/gpu': ['domain/events', 'agent/exposition', 'producers/seed.ts', 'runtime'],
  'agent/finding': ['agent/exposition'],
  'agent/engine': ['agent/exposition'],
  'agent/watch': ['agent', 'agent/engine', 'agent/exposition', 'agent/finding', 'domain/events'],
  agent: ['domain/events', 'agent/gpu', 'agent/watch', 'runtime', LOG_PORT],
  http: ['domain/**', 'http/**', 'processor/**', 'runtime', LOG_PORT, ...STORE_PORTS],
  'http/access': ['domain/events', 'http', 'runtime'],
  'http/metrics': ['domain/**', 'http', 'processor/**', 'report', 'runtime'],
  'http/routes': ['domain/**', 'http', 'http/access', 'processor/**', 'report', LOG_PORT, ...STORE_PORTS],
  cli: ['**'],
}

/** The room of a file, or of a folder that has no rules of its own: the longest name that it begins with. */
function roomOf(path: string): string {
  const folder = dirname(path).slice('src/'.length)
  const names = Object.keys(ROOMS).filter((room) => folder === room || folder.startsWith(`${room}/`))
  return names.toSorted((a, b) => b.length - a.length)[0] ?? assert.fail(`${path} is in no room`)
}

function isAllowed(target: string, allowed: readonly string[]): boolean {
  const path = target.slice('src/'.length)
  return allowed.some((rule) =>
    rule.endsWith('**') ? path.startsWith(rule.slice(0, -2)) : path === rule || dirname(path) === rule,
  )
}

test('rooms import only what they may', () => {
  const wrong = allImports.filter(({ from, target }) => {
    if (!target.startsWith('src/') || roomOf(from) === roomOf(target)) return false
    return !isAllowed(target, ROOMS[roomOf(from)]!)
  })
  assert.deepEqual(wrong, [])
})

test('routes are imported by the server and by commands, never by each other: what they share is beside their folder', () => {
  const isRoute = (path: string) => /^src\/http\/routes\/.*-routes\.ts$/.test(path)
  const wrong = allImports.filter(
    ({ from, target }) => isRoute(target) && from !== 'src/http/server.ts' && areaOf(from) !== 'cli',
  )
  assert.deepEqual(wrong, [])
})

test('no folder has more than 14 files beside each other', () => {
  const folders = Map.groupBy(globSync('src/**/*.*'), (path) => dirname(path))
  const crowded = [...folders].filter(([, files]) => files.length > 14).map(([folder]) => folder)
  assert.deepEqual(crowded, [])
})

test('each driver is imported in one folder only, and the domain imports nothing but typebox', () => {
  const homes: Record<string, RegExp> = {
    '@platformatic/kafka': /^src\/log\/kafka\//,
    mongodb: /^src\/store\/mongo\//,
    'node:sqlite': /^src\/(sqlite|log\/sqlite|store\/sqlite)\//,
    fastify: /^src\/http\//,
    pino: /^src\/cli\//,
    'prom-client': /^src\/http\//,
    koffi: /^src\/agent\/gpu\/nvml/,
  }
  for (const { from, target } of allImports) {
    const home = homes[target]
    if (home !== undefined) assert.match(from, home, `${from} imports ${target}`)
    if (areaOf(from) === 'domain' && !target.startsWith('src/'))
      assert.match(target, /^typebox/, `${from} imports ${target}`)
  }
})

test('there are no import cycles', () => {
  const graph = new Map(sources.map((path) => [path, importsOf(path).map(({ target }) => target)]))
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) assert.fail(`Import cycle: ${[...trail.slice(trail.indexOf(path)), path].join(' → ')}`)
    if (done.has(path)) return
    for (const target of graph.get(path) ?? []) if (graph.has(target)) visit(target, [...trail, path])
    done.add(path)
  }
  for (const path of sources) visit(path, [])
})

test('the domain has no clock, no randomness and no environment', () => {
  for (const path of sources.filter((one) => areaOf(one) === 'domain')) {
    const code = read(path).replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, '')
    assert.doesNotMatch(code, /Date\.now|new Date\(\)|Math\.random|process\.|performance\./, path)
  }
})

test('no default exports, no barrels, and every file begins by saying what it is', () => {
  for (const path of sources) {
    const text = read(path)
    assert.doesNotMatch(text, /^export default/m, path)
    assert.doesNotMatch(text, /^export \* from/m, path)
    assert.match(text, /^\/\/ \S/, `${path} should begin with a comment that says what it is`)
  }
})

test('only main.ts reads the environment, and hands it to the configuration', () => {
  for (const path of sources.filter((source) => source !== 'src/cli/main.ts'))
    assert.doesNotMatch(read(path), /process\.env/, path)
})

test('the JSON Schema files are what the definitions say', () => {
  for (const schema of [GpuSampleSchema, TokenUsageSchema]) {
    const path = `docs/schemas/${(schema as unknown as { $id: string }).$id}.json`
    const expected = `${JSON.stringify({ $schema: 'https://json-schema.org/draft/2020-12/schema', ...schema }, null, 2)}\n`
    assert.equal(existsSync(path) ? read(path) : '', expected, `${path} is stale: run node docs/schemas/generate.ts`)
  }
})

test('what a file exports as a value is imported by another file', () => {
  const users = [...sources, ...globSync('test/**/*.ts')].map((path) => ({ path, text: read(path) }))
  const dead = sources.flatMap((path) => {
    const names = [...read(path).matchAll(/^export (?:async )?(?:function\*?|class|const) (\w+)/gm)].map(
      ([, name]) => name!,
    )
    return names
      .filter((name) => !users.some((user) => user.path !== path && new RegExp(`\\b${name}\\b`).test(user.text)))
      .map((name) => `${path}: ${name}`)
  })
  assert.deepEqual(dead, [])
})

test('comments are no wider than code', () => {
  const wide = sources.flatMap((path) =>
    read(path)
      .split('\n')
      .flatMap((line, i) =>
        /^\s*(\/\/|\*|\/\*)/.test(line) && line.length > 120 && !line.includes('https://') ? [`${path}:${i + 1}`] : [],
      ),
  )
  assert.deepEqual(wide, [])
})

test('all dependencies are pinned exactly', () => {
  const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>
  for (const kind of ['dependencies', 'optionalDependencies', 'devDependencies']) {
    for (const [name, version] of Object.entries(manifest[kind] ?? {})) assert.match(version, /^\d+\.\d+\.\d+$/, name)
  }
})

test('the repository names no registry and no path of a machine', () => {
  const tracked = [
    'package-lock.json',
    '.npmrc',
    'Makefile',
    ...sources,
    ...globSync('{test,docs,examples,.ci,.github}/**/*.{ts,md,json,yml,yaml}'),
  ]
  const forbidden = /"resolved":|https?:\/\/(registry|repo\d*|proxy|files|index|static|deb)\.|\/farm\//
  for (const path of tracked.filter((one) => one !== 'test/tidy.test.ts'))
    assert.doesNotMatch(read(path), forbidden, path)
})

test('docs/architecture.md has a row for every room, with what it may import', () => {
  const path = 'docs/architecture.md'
  const inWords = (rule: string) => ({ '**': 'everything', [LOG_PORT]: 'the log’s port' })[rule] ?? `\`${rule}\``
  const imports = (room: string) => {
    const others = ROOMS[room]!.filter((rule) => !STORE_PORTS.includes(rule)).map(inWords)
    return [...others, ...(others.length < ROOMS[room]!.length ? ['the store’s ports'] : [])].join(', ') || 'nothing'
  }
  const known = new Map(
    [...read(path).matchAll(/^\| `src\/([\w/]+)` \| (.+) \| .* \|$/gm)].map((row) => [row[1]!, row]),
  )
  assert.deepEqual([...known.keys()], Object.keys(ROOMS), `${path} and ROOMS have other rooms`)
  const row = (room: string) => `| \`src/${room}\` | ${known.get(room)![2]} | ${imports(room)} |`
  const changed = [...known].reduce((text, [room, [line]]) => text.replace(line, () => row(room)), read(path))
  if (process.env['UPDATE_GOLDENS'] === '1') writeFileSync(path, changed)
  const lines = read(path).split('\n')
  const stale = changed.split('\n').filter((line) => !lines.includes(line))
  assert.deepEqual(stale, [], `${path} lacks these rows: UPDATE_GOLDENS=1 node --test test/tidy.test.ts`)
})
