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
  return [...read(path).matchAll(/(?:^|\s)\/\/ (.*)$|^\s*\/?\*+ (.*)$/gm)].map(([, line, block]) => line ?? block!)
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

test('no document is named that is not in the repository', () => {
  const texts = globSync('{*,{src,test,docs,examples,deploy,.github}/**/*}.{ts,js,md,sh,yaml,yml,java,mk}')
  const wrong = texts.filter((path) => /\b(?:DESIGN|CONTRACT|SPIKE|HOUSE)(?:\.md|, section|, trap)/.test(read(path)))
  assert.deepEqual(wrong, [])
})
