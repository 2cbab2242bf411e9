// API tokens for tests of the server: a token file in a folder of its own, and the Access that is made of it.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { type ApiToken, hashOf, lineOf, newToken, readTokens, type Scope } from '../../../src/http/access/api-tokens.ts'
import { Access } from '../../../src/http/access/auth.ts'
import type { RateLimits } from '../../../src/http/access/rate-limit.ts'
import type { Logger } from '../../../src/runtime/logger.ts'
import { WatchedFile } from '../../../src/runtime/watched-file.ts'

/** A token with its secret. */
export interface TestToken extends ApiToken {
  secret: string
}

export function makeToken(name: string, scopes: readonly Scope[], change: Partial<ApiToken> = {}): TestToken {
  const secret = newToken()
  return { name, hash: hashOf(secret), scopes, createdMs: 0, expiresMs: null, ...change, secret }
}

export function bearer({ secret }: Pick<TestToken, 'secret'>): { authorization: string } {
  return { authorization: `Bearer ${secret}` }
}

/** Writes a token file; it goes with the test. Answers its path. */
export function tokenFile(t: TestContext, tokens: readonly ApiToken[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'pertoken-tokens-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'tokens')
  writeTokens(path, tokens)
  return path
}

export function writeTokens(path: string, tokens: readonly ApiToken[]): void {
  writeFileSync(path, tokens.map((token) => `${lineOf(token)}\n`).join(''))
}

/** Access by these tokens; without limits nothing is limited. */
export function accessOf(
  t: TestContext,
  tokens: readonly ApiToken[],
  { logger = QUIET, limits = { requestsPerS: 0, eventsPerS: 0 } }: { logger?: Logger; limits?: RateLimits } = {},
): Access & { path: string } {
  const path = tokenFile(t, tokens)
  const read = () => readTokens(path)
  const file = new WatchedFile({ code: 'api_tokens', what: 'API tokens', paths: [path], read, logger })
  return Object.assign(new Access({ tokens: file, limits, logger }), { path })
}

const QUIET: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
