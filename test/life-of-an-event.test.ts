// docs/life-of-an-event.md against the imports of src/: each walk names every file that it needs, in an order that
// reads top to bottom, and is no longer than a newcomer can take in.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'

interface Walk {
  title: string
  rows: { file: string; functions: string[]; through: string | null }[]
  leaves: string[]
}

const read = (path: string) => readFileSync(path, 'utf8')
const page = read('docs/life-of-an-event.md')

/** Most deciding files of each walk, and most lines of them together. */
const LIMITS = [
  { files: 6, lines: 1300 },
  { files: 9, lines: 1500 },
  { files: 6, lines: 1000 },
]

function walksOf(text: string): Walk[] {
  return text
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const rows = [...section.matchAll(/^\| \d+ \| `(src\/\S+)` \(([^)]+)\)(?:, through `(src\/\S+)`)? \|/gm)]
      const leaves = /^Leaves: ([\s\S]*?)\n\n/m.exec(section)?.[1] ?? ''
      return {
        title: section.split('\n', 1)[0]!,
        rows: rows.map(([, file, functions, through]) => ({
          file: file!,
          functions: functions!.split(', ').map((name) => name.replaceAll('`', '')),
          through: through ?? null,
        })),
        leaves: [...leaves.matchAll(/`(src\/[^`]+)`/g)].map(([, path]) => path!),
      }
    })
}

/** Files that a file imports for more than their types. */
function calledBy(path: string): string[] {
  return [...read(path).matchAll(/^import (?!type )(\{[^}]*\}) from '(\.[^']+)'/gm)]
    .filter(([, names]) => names!.split(',').some((name) => /\w/.test(name) && !/^[{\s]*type /.test(name)))
    .map(([, , target]) => normalize(join(dirname(path), target!)))
}

/** What is wrong with a walk as the page has it. */
function faultsOf({ rows, leaves }: Walk, { files, lines }: (typeof LIMITS)[number]): string[] {
  const named = [...rows.flatMap(({ file, through }) => [file, through]), ...leaves].filter((path) => path !== null)
  const absent = named.filter((path) => !existsSync(path))
  if (absent.length > 0) return absent.map((path) => `${path} does not exist`)
  const decide = rows.map(({ file }) => file)
  const faults: string[] = []
  for (const [i, { file, functions, through }] of rows.entries()) {
    const text = read(file)
    for (const name of functions) {
      if (!new RegExp(`(?<!\\w)${name}(?:[(<]| = )`).test(text)) faults.push(`${file} has no function ${name}`)
    }
    for (const target of calledBy(file)) {
      if (!named.includes(target)) faults.push(`${file} calls ${target}, which is not named`)
    }
    const callers = through === null ? decide.slice(0, i) : [through]
    const isCalled = callers.some((caller) => calledBy(caller).includes(file))
    if (!isCalled && !(through === null && isEntry(rows, i))) faults.push(`${file} is called by nothing above it`)
  }
  const called = decide.flatMap(calledBy)
  for (const leaf of leaves) if (!called.includes(leaf)) faults.push(`${leaf} is called by no file of the walk`)
  const sum = decide.reduce((total, file) => total + read(file).split('\n').length - 1, 0)
  if (decide.length !== files) faults.push(`${decide.length} files, expected ${files}`)
  if (sum > lines) faults.push(`${sum} lines, expected at most ${lines}`)
  return faults
}

/** The first file that is not handed in: where the walk's own program begins. */
function isEntry(rows: Walk['rows'], i: number): boolean {
  return rows.findIndex(({ through }) => through === null) === i
}

const walks = walksOf(page)

test('the page has a walk for an event, a mark and a question', () => {
  assert.deepEqual(
    walks.map(({ title }) => title),
    ['1. From bytes to document', '2. From mark to row', '3. From question to answer'],
  )
})

for (const [i, walk] of walks.entries()) {
  const limits = LIMITS[i]!

  test(`walk ${walk.title} can be followed with only its files open`, () => {
    assert.deepEqual(faultsOf(walk, limits), [])
  })

  test(`walk ${walk.title}: a file that is taken out of the list is missed`, () => {
    for (const { file } of walk.rows) {
      const without = { ...walk, rows: walk.rows.filter((row) => row.file !== file) }
      assert.notDeepEqual(faultsOf(without, { ...limits, files: limits.files - 1 }), [], file)
    }
    for (const leaf of walk.leaves) {
      const without = { ...walk, leaves: walk.leaves.filter((path) => path !== leaf) }
      assert.notDeepEqual(faultsOf(without, limits), [], leaf)
    }
  })
}
