// The whole program against servers that ask for everything: Kafka with TLS and SCRAM, MongoDB with TLS and a login,
// users with the least of rights, passwords in files. It starts before its users are made: it says what is refused,
// waits, and goes on by itself with each thing that is put right. An event arrives as a document, and no secret
// anywhere else.

import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MongoClient } from 'mongodb'
import { makeAuthority } from '../../servers/certificates.ts'
import { startKafka } from '../../servers/kafka/kafka.ts'
import { allow, setScramUser } from '../../servers/kafka/kafka-admin.ts'
import { securedListeners } from '../../servers/kafka/secured-kafka.ts'
import { startMongod } from '../../servers/mongod.ts'
import { makeUser, urlFor } from '../../servers/mongod-users.ts'
import { skipWithoutKafka, skipWithoutMongod, uniqueName } from '../../servers/servers-for-tests.ts'
import { pertoken, startService, temporaryDirectory, until } from '../harness.ts'

const SEED = new URL('../../../examples/gpu_seed.json', import.meta.url).pathname
const KAFKA_USER = { name: 'processor', password: 'k@fka:secret/=,' }
const MONGO_USER = { name: 'processor', password: 'm@ngo:secret/%3D' }

const skip = (await skipWithoutKafka('3.9')) || (await skipWithoutMongod())

test('an event passes Kafka with TLS and SCRAM and becomes a document behind TLS and a login, with the least of rights', {
  skip,
  timeout: 120_000,
}, async (t) => {
  const directory = temporaryDirectory(t)
  const authority = await makeAuthority(directory, 'authority')
  const kafka = await startKafka({
    version: '3.9',
    mode: 'kraft',
    listeners: await securedListeners(authority, authority, { unused: 'unused' }),
    overrides: {
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
      'super.users': 'User:ANONYMOUS',
    },
  })
  t.after(() => kafka.close())
  const certificate = await authority.sign('mongod', { hosts: ['127.0.0.1'] })
  const mongod = await startMongod({ mode: 'replica-set', secured: { certificate, ca: authority.ca } })
  t.after(() => mongod.close())

  const names = { TOPIC_METRIC: uniqueName('gpu'), TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
  const group = uniqueName('group')
  const secretFile = (name: string, secret: string) => {
    writeFileSync(join(directory, name), `${secret}\n`, { mode: 0o600 })
    return join(directory, name)
  }
  const toKafka = {
    ...names,
    KAFKA_BOOTSTRAP: kafka.bootstrapOf('SASL_TLS'),
    KAFKA_TLS_CA: authority.ca,
    KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
    KAFKA_SASL_USERNAME: KAFKA_USER.name,
    KAFKA_SASL_PASSWORD_FILE: secretFile('kafka-password', KAFKA_USER.password),
  }
  const env = {
    ...toKafka,
    KAFKA_GROUP: group,
    MONGO_URL: urlFor(mongod.url, 'ca0', { name: MONGO_USER.name }),
    MONGO_PASSWORD_FILE: secretFile('mongo-password', MONGO_USER.password),
  }

  const service = await startService(t, ['processor', '--host', '127.0.0.1'], env, directory)
  const said: string[] = []
  const says = (text: RegExp) =>
    until(`/health says ${text}`, async () => {
      const health = await service.health()
      said.push(JSON.stringify(health))
      return health.status === 'error' && health.problems.some(({ message }) => text.test(message))
    })
  await says(/^Cannot prepare the store: .* the server refuses the user or the password: check the user in MONGO_URL/)
  await makeUser(mongod.url, 'ca0', MONGO_USER)
  await says(/^Cannot make topics: .* refuses the user or the password \(SCRAM-SHA-512\): check KAFKA_SASL_USERNAME/)
  await says(/^Cannot use Kafka at localhost:\d+: broker localhost:\d+ refuses the user or the password/)
  // All that the program needs; CREATE only where it makes the topics itself.
  await allow(kafka.bootstrap, KAFKA_USER.name, [
    ...Object.values(names).flatMap((name) =>
      (['READ', 'WRITE', 'CREATE'] as const).map((operation) => ({ resource: 'TOPIC' as const, name, operation })),
    ),
    { resource: 'GROUP', name: group, operation: 'READ' },
  ])
  await setScramUser(kafka.bootstrap, KAFKA_USER.name, KAFKA_USER.password)
  await service.ready()

  // The authority is in the machine's store for this one.
  const produced = pertoken(
    ['produce', '--batch', '20', '--interval', '0'],
    { ...toKafka, KAFKA_TLS_CA: 'system', SSL_CERT_FILE: authority.ca, GPU_SEED: SEED, HOSTNAME: 'gpu-host-1' },
    directory,
  )
  assert.equal(produced.status, 0, produced.stderr)
  const { outcomes } = await service.settled(40)
  assert.deepEqual([outcomes.stored, outcomes.rejected], [40, 0])
  const root = await new MongoClient(mongod.url).connect()
  t.after(() => root.close())
  assert.equal(await root.db('ca0').collection('gpu_metrics').countDocuments(), 20)
  const tokens = await root.db('ca0').collection('token_usage').find().toArray()
  assert.equal(tokens.length, 20)
  assert.ok(tokens.every((token) => token['host'] === 'gpu-host-1' && token['cost_per_token'] > 0))

  const doctor = pertoken(['doctor'], { ...env, PORT: String(service.port) }, directory)
  assert.match(doctor.stdout, /ok +log +Reached kafka at localhost:/)
  assert.match(doctor.stdout, /ok +store +Reached mongodb ca0 at 127\.0\.0\.1:\d+: 20 samples, 20 token events/)
  const shownConfig = pertoken(['config', '--print'], env, directory)
  assert.match(shownConfig.stdout, /KAFKA_SASL_PASSWORD=\*\*\*/)
  assert.match(shownConfig.stdout, /MONGO_PASSWORD=\*\*\*/)

  const metrics = await (await service.get('/metrics')).text()
  assert.equal(await service.stop(), 0, service.output)
  const refusals = service.output.split('\n').filter((line) => /refuses the user/.test(line))
  assert.ok(refusals.length >= 3 && refusals.length <= 5, `${refusals.length} lines:\n${service.output}`)
  const everything = [...said, metrics, service.output]
  for (const { stdout, stderr } of [produced, doctor, shownConfig]) everything.push(stdout, stderr)
  for (const secret of [KAFKA_USER.password, MONGO_USER.password, encodeURIComponent(MONGO_USER.password)]) {
    for (const text of everything) assert.ok(!text.includes(secret), `a secret in: ${text}`)
  }
})
