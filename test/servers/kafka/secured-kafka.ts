// The listeners of a Kafka broker that is secured in every way that users meet: TLS, TLS with client certificates, SASL
// with and without TLS, and certificates that are wrong. One broker carries them all, since a start costs seconds. Its
// plain listener stays open for the test's own questions. Users and rights are made while it runs, as an operator
// would.

import type { Authority } from '../certificates.ts'
import type { KafkaListener, KafkaOverrides } from './kafka-settings.ts'

/** Users of SASL PLAIN, which the broker's own settings name; those of SCRAM are made by `setScramUser`. */
export type PlainUsers = Readonly<Record<string, string>>

export async function securedListeners(
  server: Authority,
  clients: Authority,
  users: PlainUsers,
): Promise<Record<string, KafkaListener>> {
  const certificates = {
    good: await server.sign('broker', { hosts: ['localhost', '127.0.0.1'] }),
    expired: await server.sign('expired-broker', { hosts: ['localhost'], expired: true }),
    misnamed: await server.sign('other-broker', { hosts: ['kafka.example.net'] }),
  }
  const tls = (which: keyof typeof certificates): KafkaOverrides => ({
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': certificates[which].both,
  })
  const named = Object.entries(users).map(([name, password]) => ` user_${name}="${password}"`)
  const sasl: KafkaOverrides = {
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
    'plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required${named.join('')};`,
    'scram-sha-256.sasl.jaas.config': 'org.apache.kafka.common.security.scram.ScramLoginModule required;',
    'scram-sha-512.sasl.jaas.config': 'org.apache.kafka.common.security.scram.ScramLoginModule required;',
  }
  return {
    TLS: { protocol: 'SSL', settings: tls('good') },
    TLS_EXPIRED: { protocol: 'SSL', settings: tls('expired') },
    TLS_MISNAMED: { protocol: 'SSL', settings: tls('misnamed') },
    TLS_MUTUAL: {
      protocol: 'SSL',
      settings: {
        ...tls('good'),
        'ssl.client.auth': 'required',
        'ssl.truststore.type': 'PEM',
        'ssl.truststore.location': clients.ca,
      },
    },
    SASL: { protocol: 'SASL_PLAINTEXT', settings: sasl },
    SASL_TLS: { protocol: 'SASL_SSL', settings: { ...sasl, ...tls('good') } },
    // A login counts for this long, then the broker wants to see it again on the same connection.
    SASL_BRIEF: {
      protocol: 'SASL_PLAINTEXT',
      settings: {
        ...sasl,
        'sasl.enabled.mechanisms': 'SCRAM-SHA-512',
        'scram-sha-512.connections.max.reauth.ms': 1_500,
      },
    },
  }
}
