// The version of this package, read from package.json, two folders up both in the repository and in the package.

import { readFileSync } from 'node:fs'

/** Version of this package, like 1.2.3. */
export function version(): string {
  return (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string })
    .version
}
