// How to reach a Kafka cluster, and its time limits and intervals. One place, because all clients (queries, producer,
// membership, fetch loop) must agree on them: a request may not time out before a rebalance does. The library's own
// retries are off everywhere that matters: with them a `commit` that meets a new generation rejoins and commits old
// offsets under it. The loops here retry instead, and stop on close.

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
  /** After a crash the member's partitions are unread for this long. */
  sessionTimeoutMs?: number
  /** How long the group waits for a member to rejoin; at least the session timeout. */
  rebalanceTimeoutMs?: number
  /** First pause after a failure; it doubles up to `retryMaxMs`. */
  retryMs?: number
  retryMaxMs?: number
  /** Pause after a refused login, certificate or right: brokers log and count these, and some lock the user. */
  securityPauseMs?: number
  /** How often metadata is refreshed: new partitions, recreated topics, leaders. */
  metadataPollMs?: number
  /** How often metadata is refreshed while a topic is missing. */
  missingPollMs?: number
  /** How often a new decision is requested from the owner for a partition that it blocked. */
  blockedRetryMs?: number
  /** No progress for this long while there is lag is a problem. */
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

/** Options common to all clients of the library. */
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
