// Authentication, TLS and authorization at a real broker in every combination: each way in works for reading and
// writing, each refusal is one clear line without secrets, is retried slowly, and is over when it is corrected at the
// broker. Faults are real: users that are missing, certificates that have expired, ports that speak something else.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { after, test } from 'node:test'
import { createServer as createTlsServer, type TlsOptions } from 'node:tls'
import { inspect } from 'node:util'
import { type Connection, connectionsApiChannel, connectionsConnectsChannel } from '@platformatic/kafka'
import { loadConfig, shown } from '../../src/cli/config.ts'
import { kafkaTls } from '../../src/cli/wiring/kafka-tls.ts'
import { openLog } from '../../src/cli/wiring/wire.ts'
import { LogError, type Subscription } from '../../src/log/event-log.ts'
import type { TlsMaterial } from '../../src/log/kafka/connection-tracker.ts'
import { KafkaLog } from '../../src/log/kafka/kafka-log.ts'
import type { KafkaLogOptions } from '../../src/log/kafka/options.ts'
import { makeAuthority } from '../servers/certificates.ts'
import { startKafka } from '../servers/kafka/kafka.ts'
import { allow, createTopic, setScramUser } from '../servers/kafka/kafka-admin.ts'
import { securedListeners } from '../servers/kafka/secured-kafka.ts'
import { makeDataDirectory } from '../servers/managed-server.ts'
import { skipWithoutKafka, uniqueName } from '../servers/servers-for-tests.ts'

const skip = await skipWithoutKafka('3.9')
const limit = { skip, timeout: 60_000 }

const PLAIN = { username: 'plain-user', password: 'pl4in-secret' }
const SCRAM = { username: 'scram-user', password: 'scr@m=sec,ret' }
const WRONG = 'wr0ng-secret'
const SECRETS = [PLAIN.password, SCRAM.password, WRONG]

const secured = skip === false ? await startSecured() : (undefined as never)

async function startSecured() {
  const directory = await makeDataDirectory('certificates', undefined)
  const brokers = await makeAuthority(directory.path, 'brokers')
  const clients = await makeAuthority(directory.path, 'clients')
  const listeners = await securedListeners(brokers, clients, { [PLAIN.username]: PLAIN.password })
  const trusted = [PLAIN.username, SCRAM.username, 'CN=client', 'ANONYMOUS'].map((name) => `User:${name}`)
  const server = await startKafka({
    version: '3.9',
    mode: 'kraft',
    listeners,
    overrides: {
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users': trusted.join(';'),
    },
  })
  after(async () => {
    await server.close()
    await directory.remove()
  })
  await setScramUser(server.bootstrap, SCRAM.username, SCRAM.password)
  const ours = await clients.sign('client')
  const expired = await clients.sign('expired-client', { expired: true })
  const foreign = await brokers.sign('foreign-client')
  return { server, directory: directory.path, brokers, clients, ours, expired, foreign }
}

type Sasl = NonNullable<KafkaLogOptions['sasl']>
type Texts = Partial<Record<'ca' | 'cert' | 'key', string>>

/** Options of a log at a listener; `tls` has paths. */
function at(listener: string, { tls, sasl }: { tls?: Texts; sasl?: Sasl } = {}): Partial<KafkaLogOptions> {
  const bootstrap = listener === 'PLAINTEXT' ? secured.server.bootstrap : secured.server.bootstrapOf(listener)
  const texts: TlsMaterial = {}
  for (const [name, path] of Object.entries(tls ?? {})) texts[name as keyof Texts] = readFileSync(path, 'utf8')
  return { bootstrap, ...(sasl ? { sasl } : {}), ...(tls ? { tls: () => texts } : {}) }
}

const by = (mechanism: Sasl['mechanism'], user: { username: string; password: string } = SCRAM): Sasl => ({
  mechanism,
  ...user,
})

interface Opened extends AsyncDisposable {
  log: KafkaLog
  lines: string[]
}

function open(options: Partial<KafkaLogOptions>): Opened {
  const lines: string[] = []
  const line = (details: object, message: string) => lines.push(`${message} ${JSON.stringify(details)}`)
  const log = new KafkaLog({
    bootstrap: '',
    log: { debug() {}, info: line, warn: line, error: line },
    sessionTimeoutMs: 3_000,
    rebalanceTimeoutMs: 4_000,
    metadataPollMs: 500,
    ...options,
  })
  return { log, lines, [Symbol.asyncDispose]: () => log.close() }
}

async function newTopic(): Promise<string> {
  const topic = uniqueName('secured')
  await createTopic(secured.server.bootstrap, topic)
  return topic
}

async function until(what: string, check: () => boolean | Promise<boolean>, seconds = 20): Promise<void> {
  const deadlineMs = performance.now() + seconds * 1000
  while (!(await check())) {
    if (performance.now() > deadlineMs) throw new Error(`Waited ${seconds} s in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Subscribes from the start of a topic, and resumes after what was read when partitions come back. */
function reading(log: KafkaLog, topic: string, group = uniqueName('group')) {
  const stop = new AbortController()
  const values: string[] = []
  let next = 0
  const reader: Subscription = log.subscribe({
    group,
    topics: [topic],
    signal: stop.signal,
    onAssigned: async (partitions) => partitions.map(() => ({ offset: next })),
  })
  const read = async () => {
    for (const batch of await reader.next()) {
      values.push(...batch.records.map(({ value }) => String(value)))
      next = batch.nextOffset
      await reader.commit([{ topic, topicId: batch.topicId, partition: batch.partition, offset: next }])
    }
    return values
  }
  return { reader, values, read, stop }
}

const record = (text: string) => [{ key: null, value: Buffer.from(text) }]
const nothingOf = (secrets: readonly string[], text: string) => {
  for (const secret of secrets) assert.ok(!text.includes(secret), `a secret in: ${text}`)
}

test('each way in works: what is appended is read by a group, committed and described', limit, async () => {
  const ca = secured.brokers.ca
  const ways: [string, Partial<KafkaLogOptions>][] = [
    ['TLS', at('TLS', { tls: { ca } })],
    [
      'TLS to an address',
      { ...at('TLS', { tls: { ca } }), bootstrap: secured.server.bootstrapOf('TLS').replace(/^\w+/, '127.0.0.1') },
    ],
    ['client certificate', at('TLS_MUTUAL', { tls: { ca, cert: secured.ours.cert, key: secured.ours.key } })],
    ['SASL PLAIN', at('SASL', { sasl: by('PLAIN', PLAIN) })],
    ['SASL SCRAM-SHA-256', at('SASL', { sasl: by('SCRAM-SHA-256') })],
    ['SASL SCRAM-SHA-512', at('SASL', { sasl: by('SCRAM-SHA-512') })],
    ['SASL PLAIN over TLS', at('SASL_TLS', { tls: { ca }, sasl: by('PLAIN', PLAIN) })],
    ['SASL SCRAM-SHA-256 over TLS', at('SASL_TLS', { tls: { ca }, sasl: by('SCRAM-SHA-256') })],
    ['SASL SCRAM-SHA-512 over TLS', at('SASL_TLS', { tls: { ca }, sasl: by('SCRAM-SHA-512') })],
  ]
  const goThrough = async ([name, options]: (typeof ways)[number]) => {
    await using opened = open(options)
    const { log, lines } = opened
    const topic = uniqueName('way')
    const group = uniqueName('group')
    assert.deepEqual(await log.ensureTopics([{ name: topic, partitions: 1 }]), [topic], name)
    await log.append(topic, record(name))
    const { reader, read } = reading(log, topic, group)
    await until(`${name} is read`, async () => (await read()).length > 0)
    assert.deepEqual(await read(), [name])
    await until(`${name} is committed`, async () => {
      return (await log.describe([topic], group))[0]?.partitions[0]?.committedOffset === 1
    })
    await until(`${name} has no problem`, () => reader.problems.length === 0)
    assert.deepEqual(
      lines.filter((line) => line.includes('"security"')),
      [],
      name,
    )
  }
  await Promise.all(ways.map(goThrough))
})

test(
  'each refusal is one line with what, where and a remedy, is retriable, and contains no secret',
  limit,
  async () => {
    const { brokers, clients, ours, expired, foreign } = secured
    const ca = brokers.ca
    const nobody = { username: 'nobody-known', password: WRONG }
    const refusesLogin = (listener: string, mechanism: string) =>
      `broker ${at(listener).bootstrap} refuses the user or the password (${mechanism}): check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD, `
    const refusesOurs =
      'refuses our client certificate (TLS alert 46): check that KAFKA_TLS_CERT has not expired and is signed '
    const seemsNoTls =
      'seems not to speak TLS on this port, the handshake broke off: name its TLS port in KAFKA_BOOTSTRAP'
    const mayWantLogin =
      'closed the connection as soon as it was open: it may want a login, then set KAFKA_SASL_MECHANISM'
    const noLogin = 'takes no login on this port: name its SASL port in KAFKA_BOOTSTRAP, or unset KAFKA_SASL_MECHANISM'
    const cases: [string, Partial<KafkaLogOptions>, string][] = [
      [
        'wrong password',
        at('SASL', { sasl: by('SCRAM-SHA-256', { ...SCRAM, password: WRONG }) }),
        refusesLogin('SASL', 'SCRAM-SHA-256'),
      ],
      [
        'wrong password over TLS',
        at('SASL_TLS', { tls: { ca }, sasl: by('SCRAM-SHA-512', { ...SCRAM, password: WRONG }) }),
        refusesLogin('SASL_TLS', 'SCRAM-SHA-512'),
      ],
      [
        'wrong password, PLAIN',
        at('SASL', { sasl: by('PLAIN', { ...PLAIN, password: WRONG }) }),
        refusesLogin('SASL', 'PLAIN'),
      ],
      ['unknown user', at('SASL', { sasl: by('SCRAM-SHA-512', nobody) }), refusesLogin('SASL', 'SCRAM-SHA-512')],
      ['unknown user, PLAIN', at('SASL', { sasl: by('PLAIN', nobody) }), refusesLogin('SASL', 'PLAIN')],
      [
        'a mechanism that the broker lacks',
        at('SASL_BRIEF', { sasl: by('PLAIN', PLAIN) }),
        'has no SASL mechanism PLAIN: set KAFKA_SASL_MECHANISM to one that it has (SCRAM-SHA-512)',
      ],
      [
        'another authority',
        at('TLS', { tls: { ca: clients.ca } }),
        'is not signed by an authority that KAFKA_TLS_CA names (UNABLE_TO_VERIFY_LEAF_SIGNATURE): set it to the file',
      ],
      ['the authorities of Node', at('TLS', { tls: {} }), 'is not signed by an authority that KAFKA_TLS_CA names'],
      ['an expired certificate', at('TLS_EXPIRED', { tls: { ca } }), 'has expired: renew it at the broker'],
      [
        'a certificate for another name',
        at('TLS_MISNAMED', { tls: { ca } }),
        'is for DNS:kafka.example.net, not for "localhost": reach the broker by a name of its certificate',
      ],
      ['no TLS to a TLS port', at('TLS'), 'speaks TLS on this port: set KAFKA_TLS_CA'],
      [
        'a login without TLS to a TLS port',
        at('SASL_TLS', { sasl: by('SCRAM-SHA-256') }),
        'its port may speak TLS, then set KAFKA_TLS_CA',
      ],
      ['TLS to a plain port', at('PLAINTEXT', { tls: { ca } }), seemsNoTls],
      ['TLS and login to a port without TLS', at('SASL', { tls: { ca }, sasl: by('SCRAM-SHA-256') }), seemsNoTls],
      [
        'no client certificate',
        at('TLS_MUTUAL', { tls: { ca } }),
        'wants a client certificate (TLS alert 42): set KAFKA_TLS_CERT and KAFKA_TLS_KEY',
      ],
      [
        'an expired client certificate',
        at('TLS_MUTUAL', { tls: { ca, cert: expired.cert, key: expired.key } }),
        refusesOurs,
      ],
      [
        'a client certificate of another authority',
        at('TLS_MUTUAL', { tls: { ca, cert: foreign.cert, key: foreign.key } }),
        refusesOurs,
      ],
      ['no login where one is wanted', at('SASL'), mayWantLogin],
      [
        'no login where one is wanted, over TLS',
        at('SASL_TLS', { tls: { ca, cert: ours.cert, key: ours.key } }),
        mayWantLogin,
      ],
      ['a login where none is taken', at('PLAINTEXT', { sasl: by('SCRAM-SHA-256') }), noLogin],
      ['a login where none is taken, over TLS', at('TLS', { tls: { ca }, sasl: by('PLAIN', PLAIN) }), noLogin],
    ]
    const beRefused = async ([name, options, text]: (typeof cases)[number]) => {
      await using opened = open({ ...options, securityPauseMs: 0 })
      const { log } = opened
      // Each by a client and a connection of its own.
      for (const work of [() => log.ping(), () => log.append('any', record('x'))]) {
        await assert.rejects(work(), (error: unknown) => {
          assert.ok(error instanceof LogError, name)
          assert.ok(error.message.includes(text), `${name}: ${error.message}`)
          assert.doesNotMatch(error.message, /\n/, name)
          assert.equal(error.retriable, true, name)
          nothingOf(SECRETS, inspect(error, { depth: Infinity, showHidden: true }))
          return true
        })
      }
    }
    await Promise.all(cases.map(beRefused))
  },
)

test('a refusal is retried slowly however often callers retry, is one problem and one line', limit, async () => {
  const options = at('SASL', { sasl: by('SCRAM-SHA-512', { ...SCRAM, password: WRONG }) })
  await using opened = open(options)
  const { log, lines } = opened
  let connections = 0
  const count = () => {
    connections += 1
  }
  connectionsConnectsChannel.start.subscribe(count)
  try {
    const { reader } = reading(log, 'any')
    const calls = [
      () => log.ping(),
      () => log.append('any', record('x')),
      () => log.describe(['any']),
      () => reader.next(),
    ]
    let refused = 0
    const untilMs = performance.now() + 2_500
    while (performance.now() < untilMs) {
      for (const call of calls) await call().catch(() => (refused += 1))
    }
    assert.ok(refused > 10, `${refused} calls were refused`)
    // Within the pause of 5 s: one of the subscription, one or two of the calls.
    assert.ok(connections >= 1 && connections <= 3, `${connections} connections for ${refused} refusals`)
    assert.deepEqual(
      reader.problems.map(({ code }) => code),
      ['security'],
    )
    assert.match(
      reader.problems[0]!.message,
      /^Cannot use Kafka at localhost:\d+: broker .* refuses the user or the password/,
    )
    assert.equal(lines.length, 1, lines.join('\n'))
    nothingOf(SECRETS, `${lines.join()} ${inspect(reader.problems)}`)
    const closingMs = performance.now()
    await reader.close()
    assert.ok(performance.now() - closingMs < 1_000, 'close does not wait for the pause')
  } finally {
    connectionsConnectsChannel.start.unsubscribe(count)
  }
})

test(
  'a user that is created, removed and created again: reading waits, logs it once each time, and resumes without a gap; logins are renewed where the broker requires it',
  limit,
  async () => {
    const user = { username: 'brief-user', password: 'br1ef-secret' }
    const topic = await newTopic()
    await allow(secured.server.bootstrap, user.username, [
      { resource: 'TOPIC', name: topic, operation: 'READ' },
      { resource: 'TOPIC', name: topic, operation: 'WRITE' },
      { resource: 'GROUP', name: '*', operation: 'READ' },
    ])
    await using opened = open({ ...at('SASL_BRIEF', { sasl: by('SCRAM-SHA-512', user) }), securityPauseMs: 400 })
    const { log, lines } = opened
    const { reader, values, read } = reading(log, topic)
    let appended = 0
    const appendOne = () =>
      log.append(topic, record(String(appended))).then(
        () => {
          appended += 1
          return true
        },
        () => false,
      )
    const goesOn = async (what: string) => {
      await until(`${what}: an append is taken`, appendOne)
      await until(`${what}: all is read`, async () => new Set(await read()).size === appended)
      await until(`${what}: no problem is left`, () => reader.problems.length === 0)
    }
    const refused = (what: string) =>
      until(what, async () => {
        await appendOne()
        await read()
        return reader.problems.some(({ code }) => code === 'security')
      })

    await refused('the user is not there')
    await setScramUser(secured.server.bootstrap, user.username, user.password)
    await goesOn('the user was made')

    // SaslAuthenticate requests on open connections: two for each login.
    const SASL_AUTHENTICATE = 36
    let logins = 0
    const count = (message: unknown) => {
      if ((message as { apiKey: number }).apiKey === SASL_AUTHENTICATE) logins += 1
    }
    connectionsApiChannel.start.subscribe(count)
    await until('logins were renewed', async () => {
      await goesOn('a login is renewed')
      return logins >= 8
    })
    connectionsApiChannel.start.unsubscribe(count)

    await setScramUser(secured.server.bootstrap, user.username, 'an0ther-secret')
    await refused('the password was changed')
    await setScramUser(secured.server.bootstrap, user.username, user.password)
    await goesOn('the password was changed back')
    assert.deepEqual(
      [...new Set(values)],
      Array.from({ length: appended }, (_, i) => String(i)),
      'all, in order',
    )
    const logged = (text: string) => lines.filter((line) => line.includes(text)).length
    assert.equal(logged('refuses the user'), 2, lines.join('\n'))
    assert.equal(logged('over: security'), 2, lines.join('\n'))
    nothingOf([user.password], lines.join())
  },
)

test('a closed connection renews no login: that would keep the process from ending', limit, async () => {
  const listener = at('SASL_BRIEF', { sasl: by('SCRAM-SHA-512') })
  // Between us and the broker, to end the connection in good order, as a broker does.
  const clients = new Set<Socket>()
  const relay = createServer((client) => {
    const broker = connect(Number(listener.bootstrap!.split(':')[1]), '127.0.0.1')
    clients.add(client.once('close', () => clients.delete(client)))
    client.pipe(broker).pipe(client, { end: false })
  })
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve))
  const { port } = relay.address() as { port: number }
  const SASL_HANDSHAKE = 17
  let logins = 0
  const count = (message: unknown) => {
    const { apiKey, connection } = message as { apiKey: number; connection: Connection }
    if (apiKey === SASL_HANDSHAKE && connection.port === port) logins += 1
  }
  connectionsApiChannel.start.subscribe(count)
  try {
    await using opened = open({ ...listener, bootstrap: `127.0.0.1:${port}` })
    await opened.log.ping()
    for (const client of clients) client.end()
    await until('the connection is gone', () => clients.size === 0)
    // Longer than until the next renewal.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    assert.equal(logins, 1)
  } finally {
    connectionsApiChannel.start.unsubscribe(count)
    relay.close()
  }
})

test('a right that is missing is named with what to grant; with the least of rights all works', limit, async () => {
  const user = { username: 'limited-user', password: 'l1mited-secret' }
  const topic = await newTopic()
  const group = uniqueName('group')
  await setScramUser(secured.server.bootstrap, user.username, user.password)
  await using opened = open({ ...at('SASL', { sasl: by('SCRAM-SHA-256', user) }), securityPauseMs: 200 })
  const { log, lines } = opened
  const grant = (resource: 'TOPIC' | 'GROUP', name: string, operation: 'READ' | 'WRITE' | 'CREATE') =>
    allow(secured.server.bootstrap, user.username, [{ resource, name, operation }])
  const missing = (text: RegExp) => (error: unknown) => {
    return error instanceof LogError && error.retriable && text.test(error.message) && !error.message.includes('\n')
  }
  await assert.rejects(log.append(topic, record('x')), missing(/on the topic: grant it READ, WRITE and DESCRIBE/))
  await assert.rejects(log.describe([topic]), missing(/on the topic: grant it READ, WRITE and DESCRIBE/))

  const { reader, read } = reading(log, topic, group)
  const problem = () => reader.problems.map(({ code, message }) => `${code}: ${message}`).join('; ')
  await until('the topic is refused', () => /^security: .* on the topic: grant it READ/.test(problem()))
  await grant('TOPIC', topic, 'WRITE')
  await until('an append is taken', () =>
    log.append(topic, record('x')).then(
      () => true,
      () => false,
    ),
  )
  await until('the group is refused', () =>
    /^security: Cannot join group .* on the consumer group: grant it READ/.test(problem()),
  )
  await grant('GROUP', group, 'READ')
  await until('reading is refused', async () => {
    await read()
    return /^security: .* on the topic: grant it READ/.test(problem())
  })
  await grant('TOPIC', topic, 'READ')
  await until('it is read', async () => (await read()).length === 1)
  await until('no problem is left', () => problem() === '')
  await until(
    'it is committed',
    async () => (await log.describe([topic], group))[0]?.partitions[0]?.committedOffset === 1,
  )
  assert.equal(lines.filter((line) => line.includes('grant it')).length, 3, lines.join('\n'))

  const made = { name: uniqueName('made'), partitions: 1 }
  await assert.rejects(log.ensureTopics([made]), missing(/grant it/))
  await grant('TOPIC', made.name, 'CREATE')
  await grant('TOPIC', made.name, 'READ')
  await until('the topic is made', () =>
    log.ensureTopics([made]).then(
      (names) => names.length === 1,
      () => false,
    ),
  )
  await reader.close()
  await log.resetOffsets(group, [])
})

test('the name of a broker is sent in the TLS handshake, an address never is', limit, async () => {
  const { cert, key } = await secured.brokers.sign('named', { hosts: ['localhost', '127.0.0.1'] })
  const names: (string | false)[] = []
  const options: TlsOptions = { cert: readFileSync(cert), key: readFileSync(key) }
  const server = createTlsServer(options, (socket) => {
    names.push((socket as unknown as { servername: string | false }).servername)
    socket.destroy()
  })
  await new Promise<void>((resolve) => server.listen(0, resolve))
  try {
    const { port } = server.address() as { port: number }
    for (const host of ['localhost', '127.0.0.1']) {
      await using opened = open({ ...at('TLS', { tls: { ca: secured.brokers.ca } }), bootstrap: `${host}:${port}` })
      await assert.rejects(opened.log.ping(), LogError)
    }
    assert.deepEqual(names, ['localhost', false])
  } finally {
    server.close()
  }
})

test('a port that speaks no Kafka at all is one clear line, with TLS and without', limit, async () => {
  const http = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  try {
    const bootstrap = `127.0.0.1:${(http.address() as { port: number }).port}`
    await using withTls = open({ ...at('TLS', { tls: { ca: secured.brokers.ca } }), bootstrap })
    await assert.rejects(withTls.log.ping(), /^LogError: Cannot reach Kafka: broker .* seems not to speak TLS/)
    await using without = open({ bootstrap })
    await assert.rejects(without.log.ping(), (error) => error instanceof LogError && !error.message.includes('\n'))
  } finally {
    http.close()
  }
})

test(
  'renewed files take effect without a restart; what cannot be used leaves the last good ones effective',
  limit,
  async () => {
    const { directory, brokers, ours, expired } = secured
    const path = (name: string) => `${directory}/${name}.pem`
    const put = (name: string, from: string) => writeFileSync(path(name), readFileSync(from))
    put('ca', brokers.ca)
    put('cert', expired.cert)
    put('key', expired.key)
    const env = { KAFKA_TLS_CA: path('ca'), KAFKA_TLS_CERT: path('cert'), KAFKA_TLS_KEY: path('key') }
    const loaded = loadConfig({ env, envFile: '', flags: {} })
    assert.deepEqual(loaded.problems, [])
    const quiet = { debug() {}, info() {}, warn() {}, error() {} }
    const tls = kafkaTls(loaded.config, quiet)!
    await using opened = open({ ...at('TLS_MUTUAL'), tls, securityPauseMs: 50 })
    const answers = () =>
      opened.log.ping().then(
        () => 'reached',
        (error) => String(error),
      )
    assert.match(await answers(), /refuses our client certificate/)
    // Half of it: a certificate whose key is still to come.
    put('cert', ours.cert)
    assert.match(await answers(), /refuses our client certificate/)
    assert.equal(tls().cert, readFileSync(expired.cert, 'utf8'))
    put('key', ours.key)
    await until('the renewed certificate is used', async () => (await answers()) === 'reached')

    const wrong: [Record<string, string>, RegExp][] = [
      [
        { ...env, KAFKA_TLS_CA: ours.key },
        /KAFKA_TLS_CA is ".*": expected a file with the certificate of an authority in PEM, or "system"/,
      ],
      [{ ...env, KAFKA_TLS_KEY: expired.key }, /key in ".*" does not belong to the certificate in/],
      [{ ...env, KAFKA_TLS_CERT: ours.key }, /certificate in ".*": expected PEM/],
    ]
    for (const [settings, text] of wrong) {
      const { config, problems } = loadConfig({ env: settings, envFile: '', flags: {} })
      assert.deepEqual(problems, [])
      assert.throws(() => kafkaTls(config, quiet), text)
    }
    for (const [settings, text] of [
      [
        { KAFKA_TLS_CA: path('no-such-file') },
        /KAFKA_TLS_CA is ".*": expected the path of a file that exists, or system/,
      ],
      [{ KAFKA_TLS_CERT: ours.cert }, /Only one of KAFKA_TLS_CERT and KAFKA_TLS_KEY is set/],
      [
        { KAFKA_TLS_CERT: 'system', KAFKA_TLS_KEY: ours.key },
        /KAFKA_TLS_CERT is "system": expected the path of a file that exists$/m,
      ],
    ] as const) {
      assert.match(loadConfig({ env: settings, envFile: '', flags: {} }).problems.join('\n'), text)
    }
    const system = loadConfig({ env: { KAFKA_TLS_CA: 'system' }, envFile: '', flags: {} })
    assert.deepEqual(system.problems, [])
    const authorities = kafkaTls(system.config, quiet)!().ca
    assert.ok(Array.isArray(authorities) && authorities.length > 0 && authorities[0]!.includes('BEGIN CERTIFICATE'))
  },
)

test('SASL PLAIN without TLS is a warning, with TLS it is none, and the password is shown nowhere', limit, async () => {
  const { server, brokers } = secured
  const plain = {
    KAFKA_SASL_MECHANISM: 'PLAIN',
    KAFKA_SASL_USERNAME: PLAIN.username,
    KAFKA_SASL_PASSWORD: PLAIN.password,
  }
  const ways = [
    [{ ...plain, KAFKA_BOOTSTRAP: server.bootstrapOf('SASL') }, 1],
    [{ ...plain, KAFKA_BOOTSTRAP: server.bootstrapOf('SASL_TLS'), KAFKA_TLS_CA: brokers.ca }, 0],
  ] as const
  for (const [env, warnings] of ways) {
    const { config, problems } = loadConfig({ env, envFile: '', flags: {} })
    assert.deepEqual(problems, [])
    const lines: string[] = []
    const line = (fields: object, message: string) => lines.push(`${message} ${JSON.stringify(fields)}`)
    const log = await openLog(config, { debug() {}, info() {}, warn: line, error: line })
    await log.ping()
    await log.close()
    assert.equal(lines.filter((line) => line.startsWith('SASL PLAIN without TLS')).length, warnings)
    nothingOf(SECRETS, `${lines.join()} ${log.description} ${shown('KAFKA_SASL_PASSWORD', PLAIN.password)}`)
  }
})
