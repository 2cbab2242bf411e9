// House rules for prose, in pages and comments: what they name exists. A page or a comment that leads nowhere costs a
// reader more than none.

import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'

const PAGES = globSync('{*,{docs,examples,deploy,.github}/**/*}.md').sort()
const FOLDERS = 'src|test|docs|examples|deploy|bin|.github'
const read = (path: string) => readFileSync(path, 'utf8')

test('files and folders that pages name exist', () => {
  const wrong = PAGES.flatMap((page) => {
    const named = [...read(page).matchAll(new RegExp(`(?<![\\w/.~-])((?:${FOLDERS})/[\\w./-]*[\\w/])`, 'g'))]
    // A page of deploy/ may name its own folder's files, and the .env that a machine's setup makes.
    const isThere = (path: string) => [path, join(dirname(page), path)].some(existsSync) || path.endsWith('/.env')
    return named.filter(([, path]) => !isThere(path!)).map(([, path]) => `${page}: ${path}`)
  })
  assert.deepEqual(wrong, [])
})

test('links of pages lead somewhere', () => {
  const wrong = PAGES.flatMap((page) => {
    const links = [...read(page).matchAll(/\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)/g)].map(([, path]) => path!)
    return links.filter((path) => !existsSync(join(dirname(page), path))).map((path) => `${page}: ${path}`)
  })
  assert.deepEqual(wrong, [])
})

/** The text of a source's comments, a line each: after //, or in a block's line. A // inside a string is not one. */
function commentsOf(path: string): string[] {
  return [...read(path).matchAll(/(?:^|\s)\/\/ (.*)$|^\s*\/?\*+ (.*?)(?:\*\/)?$/gm)].map(
    ([, line, block]) => line ?? block!,
  )
}

test('files that comments of src name exist, by path or by the end of it', () => {
  const files = globSync(`{${FOLDERS.replaceAll('|', ',')}}/**/*.*`)
  const isThere = (name: string) => files.some((file) => file === name || file.endsWith(`/${name}`)) || existsSync(name)
  // Of other projects.
  const foreign = new Set(['docs/inference-cost-tracking.md'])
  const name = /(?<![\w/.*$-])((?:[\w.-]+\/)*[\w.-]+\.(?:ts|js|mjs|md|html|css|sh|yaml|svg|puml))\b/g
  const wrong = globSync('src/**/*.ts').flatMap((path) => {
    const named = commentsOf(path).flatMap((comment) => [...comment.matchAll(name)].map(([, found]) => found!))
    return named.filter((found) => !isThere(found) && !foreign.has(found)).map((found) => `${path}: ${found}`)
  })
  assert.deepEqual(wrong, [])
})

/**
 * Words that a committer of Kafka or TimescaleDB would not use of code, with those that they would. A hit is nearly
 * always wrong; where it is right, another word is as good.
 */
const WORDS: readonly (readonly [words: string, instead: string])[] = [
  ['anew', 'again, recomputed, recreated'],
  ['told|said', 'reported, logged, returned, passed'],
  ['tell|tells|says', 'reports, returns, states, names'],
  ['in force', 'effective'],
  ['by itself|by themselves', 'recovers, resumes, on its own, alone'],
  ['nobody|somebody|everybody|a person', 'no caller, an operator, a user, the passive'],
  ['dark', 'unreported'],
]
/** In what an operator reads, "the driver says", "nobody may read" and "the rule in force" are plain English. */
const RIGHT_IN_TEXTS = /tells|nobody|in force|anew/
const bannedOf = (words: string[]) => new RegExp(`\\b(?:${words.join('|')})\\b`, 'gi')

test('pages and comments use the field’s words', () => {
  const banned = bannedOf(WORDS.map(([words]) => words))
  const hits = [
    ...PAGES.map((path) => ({ path, text: proseOf(path) })),
    ...globSync('src/**/*.ts').map((path) => ({ path, text: commentsOf(path).join('\n') })),
  ].flatMap(({ path, text }) => [...text.matchAll(banned)].map(({ index }) => `${path}: ${around(text, index)}`))
  assert.deepEqual(hits, [], `Take other words: ${WORDS.map((row) => row.join(' → ')).join('; ')}`)
})

test('texts of the program use them too, but for what golden files and tests hold as published', () => {
  const banned = bannedOf(WORDS.map(([words]) => words).filter((words) => !RIGHT_IN_TEXTS.test(words)))
  const published = globSync(['test/surface/golden/*', 'test/**/*.test.ts']).map(read).join('\n')
  const isPublished = (text: string, at: number) => published.includes(text.slice(Math.max(0, at - 10), at + 18).trim())
  const hits = globSync('src/**/*.ts').flatMap((path) => {
    const texts = [...read(path).matchAll(/^(?!\s*(?:\/\/|\*)).*?(['`])(.*?[^\\])\1/gm)].map(([, , text]) =>
      text!.replaceAll(/\$\{\w+\}/g, '…').replaceAll('\\n', '\n'),
    )
    return texts.flatMap((text) =>
      [...text.matchAll(banned)]
        .filter(({ index }) => !isPublished(text, index))
        .map(({ index }) => `${path}: ${around(text, index)}`),
    )
  })
  assert.deepEqual(hits, [])
})

/** A page without code. */
function proseOf(path: string): string {
  return read(path)
    .replaceAll(/^```[\s\S]*?^```$/gm, '')
    .replaceAll(/`[^`]*`/g, '')
}

function around(text: string, at: number): string {
  return text.slice(Math.max(0, at - 30), at + 30).replaceAll('\n', ' ')
}
