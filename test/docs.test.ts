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
