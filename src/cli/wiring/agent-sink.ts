// The agent's sink according to the settings: another pertoken (--to), Kafka, or the embedded log; and the token for
// it, whose file is read again for each use: a replaced token must not need a restart of a hundred agents.

import { readFileSync } from 'node:fs'
import { logSink } from '../../agent/log-sink.ts'
import type { Sink } from '../../agent/sink.ts'
import { type CommandContext, textFlag, UsageError } from '../command.ts'
import { proxyEnvFor } from './proxy-env.ts'
import { defaultPartitions, type makeLogger, openLog } from './wire.ts'

/** The sink, not yet connected, and a function that closes it with all that it uses. */
export async function openSink(
  { config, env }: Pick<CommandContext, 'config' | 'env'>,
  token: () => string | null,
  logger: ReturnType<typeof makeLogger>,
): Promise<{ sink: Sink; close: () => Promise<void> }> {
  if (config.AGENT_TO === null) {
    const log = await openLog(config, logger)
    const topics = { gpu: config.TOPIC_METRIC, token: config.TOPIC_TOKEN }
    return {
      sink: logSink(log, { topics, partitions: defaultPartitions(config) }),
      close: () => log.close(),
    }
  }
  const url = new URL(config.AGENT_TO)
  if (config.KAFKA_BOOTSTRAP !== null) logger.warn({}, 'KAFKA_BOOTSTRAP is not used: AGENT_TO says where to send')
  if (token() !== null && url.protocol === 'http:' && !/^(localhost|127\.0\.0\.1|\[::1\])$/.test(url.hostname)) {
    logger.warn({}, `The token travels in the clear to ${url.origin}: use https, unless the way there is a tunnel`)
  }
  const { httpSink } = await import('../../agent/http-sink.ts')
  const ca = config.AGENT_CA === null ? undefined : readFileSync(config.AGENT_CA, 'utf8')
  const sink = httpSink({ url, token, ca, proxyEnv: proxyEnvFor(url, env) })
  return { sink, close: () => sink.close() }
}

/**
 * Returns a function that returns the current token. A token file is read again at each call; while it cannot be used
 * the last good token is returned. Throws a UsageError when it cannot be used at the start.
 */
export function tokenReader({ config, flags, loaded }: CommandContext): () => string | null {
  const path = textFlag(flags, 'token-file') ?? loaded.secretFiles.API_TOKEN
  if (path === undefined) return () => config.API_TOKEN
  const read = () => {
    const text = readFileSync(path, 'utf8').trim()
    if (!/^[\x21-\x7e]+$/.test(text)) throw new Error('it holds no token: expected one line')
    return text
  }
  let last: string
  try {
    last = read()
  } catch (error) {
    throw new UsageError(`Token file "${path}" cannot be used: ${(error as Error).message}`)
  }
  return () => {
    try {
      last = read()
    } catch {
      // It may be in the middle of a replacement; a wrong token is reported by the receiver.
    }
    return last
  }
}
