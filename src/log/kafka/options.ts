// How to reach a Kafka cluster, and the times that decide how patient we are with it. One place, because each client of
// ours (queries, producer, group member, fetcher) must agree on them: a request may not time out before a rebalance
// does. The library's own retries are off everywhere that matters: with them a `commit` that meets a new generation
// rejoins by itself and sends old offsets under it (SPIKE.md, trap 2). Our loops retry instead; they know when to stop.

import type { BaseOptions } from '@platformatic/kafka'
import type { Logger } from '../../runtime/logger.ts'
import { type ConnectionTracker, newConnectionTracker, type TlsSource, tlsOptions } from './connection-tracker.ts'

export interface KafkaLogOptions {
  /** `host:port`, several with commas. */
  bootstrap: string
  clientId?: string
  sasl?: { mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'; username: string; password: string }
  /** Its presence means TLS. The broker's certificate is always verified, its name included. */
  tls?: TlsSource
  log: Logger
  /** After a crash the member's partitions wait this long. */
  sessionTimeoutMs?: number
  /** How long the group waits for a member to rejoin; at least the session timeout. */
  rebalanceTimeoutMs?: number
  /** First pause after a failure; it doubles up to `retryMaxMs`. */
  retryMs?: number
  retryMaxMs?: number
  /** Pause after a refused login, certificate or right: brokers log and count these, and some lock the user. */
  securityPauseMs?: number
  /** How often topics are looked at: new partitions, a topic made anew, leaders. */
  metadataPollMs?: number
  /** How often a topic that is missing is looked for. */
  missingPollMs?: number
  /** How often the owner is asked again about a partition that it blocked. */
  blockedRetryMs?: number
  /** Not moving for this long while there is lag is a problem. */
  stalledMs?: number
}

export type KafkaSettings = Required<Omit<KafkaLogOptions, 'sasl' | 'tls'>> &
  Pick<KafkaLogOptions, 'sasl' | 'tls'> & { connections: ConnectionTracker }

export function kafkaSettings(options: KafkaLogOptions): KafkaSettings {
  const sessionTimeoutMs = options.sessionTimeoutMs ?? 10_000
  return {
    clientId: 'pertoken',
    retryMs: 250,
    retryMaxMs: 3_000,
    securityPauseMs: 5_000,
    metadataPollMs: 5_000,
    missingPollMs: 1_000,
    blockedRetryMs: 5_000,
    stalledMs: 60_000,
    ...options,
    connections: newConnectionTracker(options.tls),
    sessionTimeoutMs,
    rebalanceTimeoutMs: Math.max(options.rebalanceTimeoutMs ?? sessionTimeoutMs + 5_000, sessionTimeoutMs),
  }
}

/** What every client of the library gets. */
export function baseOptions(settings: KafkaSettings, requestTimeoutMs: number): BaseOptions {
  return {
    clientId: settings.clientId,
    bootstrapBrokers: settings.bootstrap.split(',').map((broker) => broker.trim()),
    connectTimeout: 3_000,
    requestTimeout: requestTimeoutMs,
    timeout: requestTimeoutMs,
    retries: 0,
    autocreateTopics: false,
    context: settings.connections,
    ...(settings.sasl ? { sasl: settings.sasl } : {}),
    ...(settings.tls ? { tls: tlsOptions(settings.connections) } : {}),
  }
}
