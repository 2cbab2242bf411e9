// Where the agent sends to, as the settings say: another pertoken (--to), Kafka, or the embedded log. And the token for it,
// which is read again whenever its file changes: a token that was replaced must not need a hundred restarts.

import { readFileSync } from 'node:fs'
import { logSink } from '../../agent/log-sink.ts'
import type { Sink } from '../../agent/sink.ts'
import { type CommandContext, textFlag, UsageError } from '../command.ts'
import type { Config } from '../options.ts'
import { defaultPartitions, type makeLogger, openLog } from './wire.ts'

/** The sink, not yet connected, and what closes it and all below it. */
export async function openSink(
  config: Config,
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
  const sink = httpSink({ url, token, ca })
  return { sink, close: () => sink.close() }
}

/** The token now: a file is read again each time, so that a new token needs no restart; what cannot be read changes nothing. */
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
      // Being replaced just now, perhaps; a token that is wrong is said by the other side.
    }
    return last
  }
}
