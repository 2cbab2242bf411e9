// House rules as a test: who may import what, no cycles, no clock or randomness in the domain, no barrels or default
// exports, every file says what it is, paths and commands that the docs name exist, generated files are current.

import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'
import { GpuSampleSchema, TokenUsageSchema } from '../src/domain/schemas.ts'

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

/** What each area may import of src/, beside itself. Ports are files, not areas. */
const ALLOWED: Record<string, RegExp> = {
  domain: /^$/,
  sqlite: /^$/,
  log: /^src\/domain\/|^src\/sqlite\//,
  store: /^src\/(domain|sqlite)\/|^src\/log\/event-log\.ts$/,
  report: /^src\/domain\//,
  processor: /^src\/(domain|report)\/|^src\/log\/event-log\.ts$|^src\/store\/(event|ledger)-store\.ts$/,
  sources: /^src\/(domain|report)\/|^src\/log\/event-log\.ts$|^src\/store\/(event|ledger)-store\.ts$/,
  http: /^src\/(domain|report|processor)\/|^src\/log\/event-log\.ts$|^src\/store\/(event|ledger)-store\.ts$/,
  cli: /^src\//,
}

test('areas import only what they may', () => {
  const wrong = allImports.filter(({ from, target }) => {
    return target.startsWith('src/') && areaOf(from) !== areaOf(target) && !ALLOWED[areaOf(from)]!.test(target)
  })
  assert.deepEqual(wrong, [])
})

test('each driver is imported in one folder only, and the domain imports nothing but typebox', () => {
  const homes: Record<string, RegExp> = {
    '@platformatic/kafka': /^src\/log\/kafka\//,
    mongodb: /^src\/store\/mongo\//,
    'node:sqlite': /^src\/(sqlite|log\/sqlite|store\/sqlite)\//,
    fastify: /^src\/http\//,
    pino: /^src\/cli\//,
    'prom-client': /^src\/http\//,
    koffi: /^src\/sources\/gpu\/nvml/,
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

test('only the configuration reads the environment', () => {
  for (const path of sources.filter((one) => areaOf(one) !== 'cli'))
    assert.doesNotMatch(read(path), /process\.env/, path)
})

test('paths that the docs name exist', () => {
  for (const doc of ['README.md', ...globSync('docs/**/*.md')]) {
    const named = read(doc).matchAll(
      /(?<![\w/.-])((?:src|test|bench|docs|schemas|seeds|bin)\/[\w./-]+\.(?:ts|json|js|md|css|html))\b/g,
    )
    for (const [, path] of named) assert.ok(existsSync(path!), `${doc} names ${path}, which does not exist`)
  }
})

test('the JSON Schema files are what the definitions say', () => {
  for (const schema of [GpuSampleSchema, TokenUsageSchema]) {
    const path = `schemas/${(schema as unknown as { $id: string }).$id}.json`
    const expected = `${JSON.stringify({ $schema: 'https://json-schema.org/draft/2020-12/schema', ...schema }, null, 2)}\n`
    assert.equal(existsSync(path) ? read(path) : '', expected, `${path} is stale: run node schemas/generate.ts`)
  }
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
    ...globSync('{test,bench,docs,.ci}/**/*.{ts,md,json}'),
  ]
  const forbidden = /"resolved":|https?:\/\/(registry|repo\d*|proxy|files|index|static|deb)\.|\/farm\//
  for (const path of tracked.filter((one) => one !== 'test/tidy.test.ts'))
    assert.doesNotMatch(read(path), forbidden, path)
})
