// Golden files: what users, scripts and older programs rely on, as text that is compared byte for byte. A difference is
// printed as a diff; where the change is meant, UPDATE_GOLDENS=1 writes the file again, and the review sees the diff.

import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { diff } from 'node:util'

export const UPDATE_COMMAND = 'UPDATE_GOLDENS=1 node --test test/surface/*.test.ts'
const CONTEXT_LINES = 3

/** The text of a golden file, '' when there is none. */
export function goldenText(name: string): string {
  const path = pathOf(name)
  return existsSync(path) ? readFileSync(path, 'utf8') : ''
}

/** Compares a text with a golden file; with UPDATE_GOLDENS=1 writes the file instead. */
export function assertGolden(name: string, text: string): void {
  const actual = text.endsWith('\n') ? text : `${text}\n`
  if (process.env['UPDATE_GOLDENS'] === '1') {
    writeFileSync(pathOf(name), actual)
    return
  }
  const expected = goldenText(name)
  if (actual === expected) return
  assert.fail(
    `The published surface has changed: --- test/surface/golden/${name} +++ this code\n${diffText(expected, actual)}\n` +
      `Where that is meant: ${UPDATE_COMMAND}`,
  )
}

/** Changed lines with - and +, a few lines around each, and the line number of the golden file before each place. */
function diffText(before: string, after: string): string {
  const entries = diff(before.split('\n'), after.split('\n'))
  const shown = new Set<number>()
  for (const [i, [side]] of entries.entries()) {
    if (side === 0) continue
    for (let near = i - CONTEXT_LINES; near <= i + CONTEXT_LINES; near++) shown.add(near)
  }
  const lines: string[] = []
  let lineNumber = 0
  for (const [i, [side, line]] of entries.entries()) {
    if (side >= 0) lineNumber++
    if (!shown.has(i)) continue
    if (!shown.has(i - 1)) lines.push(`@@ line ${lineNumber} @@`)
    lines.push(`${side === 0 ? ' ' : side > 0 ? '-' : '+'}${line}`)
  }
  return lines.join('\n')
}

function pathOf(name: string): URL {
  return new URL(`./golden/${name}`, import.meta.url)
}
