// Compiles src/ to dist/ for the published package (Node strips no types under node_modules) and copies the page's files,
// which are plain browser code already.

import { execFileSync } from 'node:child_process'
import { cpSync, rmSync } from 'node:fs'

rmSync('dist', { recursive: true, force: true })
execFileSync('node_modules/.bin/tsc', ['-p', 'src/tsconfig.build.json'], { stdio: 'inherit' })
cpSync('src/http/page', 'dist/http/page', { recursive: true })
