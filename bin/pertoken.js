#!/usr/bin/env node
// Starts pertoken. Plain JavaScript on purpose: it must run on any Node, to be able to say that the Node is too old.
// In the repository the TypeScript sources run as they are; the published package carries them compiled in dist/, because
// Node strips no types below node_modules.
import { existsSync } from 'node:fs'
import module from 'node:module'
import { fileURLToPath } from 'node:url'

/** How long something left open may keep a process that has nothing left to do. */
const LEFT_OPEN_MS = 1000

const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 6)) {
  process.stderr.write(
    `pertoken needs Node 24.6 or later: this is ${process.version} at ${process.execPath}.\n` +
      'In the repository: run "make run", or "npm run pertoken -- COMMAND", which use the Node that the project brings.\n' +
      'Elsewhere: npm install node@26 beside it, and start it with npx pertoken.\n',
  )
  process.exit(2)
}
const source = new URL('../src/cli/main.ts', import.meta.url)
const isRepository = existsSync(source)
// Stripping types is half of a start from the sources, so its result is cached beside them. The package has less to win
// and no folder for it: Node's own place is below the shared /tmp, where what another user left would be executed.
if (isRepository) module.enableCompileCache(fileURLToPath(new URL('../.cache/compile', import.meta.url)))
const { main } = await import(isRepository ? source.href : new URL('../dist/cli/main.js', import.meta.url).href)
process.exitCode = await main(process.argv.slice(2))
// All is done and closed. Whatever a library has left open all the same must not hold up the end; what is still being
// written may.
const isWritten = () => process.stdout.writableLength === 0 && process.stderr.writableLength === 0
setInterval(() => isWritten() && process.exit(), LEFT_OPEN_MS).unref()
