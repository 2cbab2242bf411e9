// API tokens, limits and certificate of the HTTP server, from the settings. What cannot be used at the start is wrong
// usage, all reported at once: a server that starts without access control because its token file is missing would be
// worse than none.

import { readTokens } from '../../http/access/api-tokens.ts'
import { Access } from '../../http/access/auth.ts'
import { readCertificate } from '../../http/access/certificate.ts'
import type { HttpDependencies } from '../../http/dependencies.ts'
import type { Logger } from '../../runtime/logger.ts'
import { WatchedFile } from '../../runtime/watched-file.ts'
import { UsageError } from '../command.ts'
import type { Config } from '../options.ts'

type Security = Pick<HttpDependencies, 'access' | 'certificate'>

/** Opens the files that the settings name; throws a UsageError that lists everything that is wrong. */
export function httpSecurity(config: Config, logger: Logger): Security {
  const problems: string[] = []
  const attempt = (open: () => Security): Security => {
    try {
      return open()
    } catch (error) {
      problems.push((error as Error).message)
      return {}
    }
  }
  const security = { ...attempt(() => accessOf(config, logger)), ...attempt(() => certificateOf(config, logger)) }
  if (problems.length > 0) throw new UsageError(problems.join('\n'))
  return security
}

function accessOf(config: Config, logger: Logger): Security {
  const { API_TOKENS_FILE: path, HTTP_RATE_REQUESTS: requestsPerS, HTTP_RATE_EVENTS: eventsPerS } = config
  if (path === null) return {}
  const read = () => readTokens(path)
  const tokens = new WatchedFile({ code: 'api_tokens', what: 'API tokens', paths: [path], read, logger })
  if (tokens.value.length === 0)
    logger.warn({ path }, 'There is no API token: nobody may read or write until one is added')
  return { access: new Access({ tokens, limits: { requestsPerS, eventsPerS }, logger }) }
}

function certificateOf({ HTTP_TLS_CERT: cert, HTTP_TLS_KEY: key }: Config, logger: Logger): Security {
  if (cert === null || key === null) return {}
  const read = () => readCertificate(cert, key)
  const what = 'certificate and key'
  return { certificate: new WatchedFile({ code: 'certificate', what, paths: [cert, key], read, logger }) }
}
