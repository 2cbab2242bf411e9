// Logins, TLS and rights at a real mongod that requires all of them. Both contracts hold for a user with the least
// rights, and each of these rights is needed. Each kind of refusal is one clear line without secrets, is retried
// slowly, and ends when it is corrected at the server.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { inspect } from 'node:util'
import { MongoClient } from 'mongodb'
import { loadConfig, shown } from '../../src/cli/config.ts'
import { openStore } from '../../src/cli/wiring/wire.ts'
import { StoreError } from '../../src/store/event-store.ts'
import type { MongoStoreOptions } from '../../src/store/mongo/connection.ts'
import { readForeignDocuments } from '../../src/store/mongo/events/foreign.ts'
import { MongoStore } from '../../src/store/mongo/mongo-store.ts'
import { closingHint, securityFault } from '../../src/store/mongo/security-faults.ts'
import { makeAuthority } from '../servers/certificates.ts'
import { makeDataDirectory } from '../servers/managed-server.ts'
import { startMongod } from '../servers/mongod.ts'
import { leastRole, makeUser, type RoleDocument, urlFor } from '../servers/mongod-users.ts'
import { skipWithoutMongod, uniqueName } from '../servers/servers-for-tests.ts'
import { eventStoreContract, letter } from './event-store.contract.ts'
import { bucket, collect, sample, T0, token } from './ledger-samples.ts'
import { ledgerStoreContract } from './ledger-store.contract.ts'

const skip = await skipWithoutMongod()
const limit = { skip, timeout: 60_000 }

/** With every character that means something in a URL. */
const PASSWORD = 'p@ss:/?#[]%40&=+ wörd'
const WRONG = 'wr0ng-secret'
const SECRETS = [PASSWORD, encodeURIComponent(PASSWORD), WRONG]

const secured = skip === false ? await startSecured() : (undefined as never)

async function startSecured() {
  const directory = await makeDataDirectory('certificates', undefined)
  const authority = await makeAuthority(directory.path, 'mongo')
  const other = await makeAuthority(directory.path, 'other')
  // Not for localhost, so that this is a wrong name for it.
  const certificate = await authority.sign('mongod', { hosts: ['127.0.0.1'] })
  const server = await startMongod({ mode: 'replica-set', secured: { certificate, ca: authority.ca } })
  const plain = await startMongod({ mode: 'standalone' })
  const root = await new MongoClient(server.url).connect()
  after(async () => {
    await root.close()
    await Promise.all([server.close(), plain.close()])
    await directory.remove()
  })
  const database = uniqueName('least')
  await makeUser(server.url, database, { name: 'pertoken', password: PASSWORD })
  return { server, plain, root, database, ca: authority.ca, otherCa: other.ca }
}

class Lines {
  readonly lines: string[] = []
  debug(): void {}
  info(fields: object, message: string): void {
    this.lines.push(`${message} ${JSON.stringify(fields)}`)
  }
  warn = this.info
  error = this.info
}

function open(options: Partial<MongoStoreOptions> = {}) {
  const { server, database } = secured
  const log = new Lines()
  const url = urlFor(server.url, database, { name: 'pertoken' })
  const store = new MongoStore({ url, password: PASSWORD, serverSelectionTimeoutMs: 700, log, ...options })
  return { store, lines: log.lines, [Symbol.asyncDispose]: () => store.close() }
}

/** The same database for each of the contracts' tests, emptied in between. */
async function makeFixture() {
  const db = secured.root.db(secured.database)
  return {
    open: () => open().store,
    writeFormat: async (format: number) => {
      await db.collection('pt_meta').updateOne({ _id: 'format' as never }, { $set: { number: format } })
    },
    insertForeign: async (kind: 'gpu' | 'token', documents: Record<string, unknown>[]) => {
      await db.collection(kind === 'gpu' ? 'gpu_metrics' : 'token_usage').insertMany(documents)
    },
    dispose: async () => {
      await Promise.all((await db.collections()).map((collection) => collection.deleteMany({})))
    },
  }
}

if (skip === false) {
  eventStoreContract('mongodb, TLS, least role', makeFixture)
  ledgerStoreContract('mongodb, TLS, least role', makeFixture)
}

/** What a processor, its keeper, retention and the commands do to a store. */
async function workThrough(store: MongoStore): Promise<void> {
  const position = { topic: 't', partition: 0, topicId: 'first', offset: 1 }
  const { ledger } = store
  await store.prepare()
  await store.writeDocuments([sample('a', 0)], [token('b', 1)])
  await store.writeDeadLetters([letter(1)])
  await store.markRedriven(letter(1)._id, new Date(T0))
  await store.ledger.insertMarks('minute', [{ startMs: T0, hosts: ['h1'] }], T0)
  await store.advancePositions('g', [position])
  await store.resetPositions('g', [position])
  await store.readPositions('g')
  await store.count()
  await store.listDeadLetters({ limit: 1 })
  await store.purgeDeadLetters(T0 + 2000)
  await ledger.dirtyBuckets('minute', 1)
  await ledger.deleteMarks((await ledger.readMarks('minute', T0)).map(({ id }) => id))
  for (const rev of (await ledger.readRevs('minute', T0, ['h1'])).values())
    await ledger.replaceBuckets([bucket({ rev })])
  await ledger.replaceBuckets([bucket()])
  await ledger.replaceBuckets([bucket({ rev: 1 })])
  await collect(ledger.readBuckets('minute', T0, T0 + 60_000))
  await ledger.tokenTotals(T0, T0 + 60_000, ['h1'])
  await ledger.rawRange()
  await ledger.insertBook({ version: 1, fromMs: null, atMs: T0, origin: 'cli', book: {} })
  await ledger.readBooks()
  await ledger.insertRevision({ revision: 1, fromMs: T0, toMs: T0, bookVersion: 1, atMs: T0, summary: {} })
  await ledger.updateRevisionSummary(1, { done: true })
  await ledger.advanceDay({ startMs: 0, state: 'closing', sinceMs: T0 })
  await ledger.purge(T0, T0 + 60_000)
}

test(
  'every right of the role is needed: without any one of them something is refused, by its name',
  limit,
  async () => {
    const database = uniqueName('rights')
    const db = secured.root.db(database)
    // Making a collection needs no right beside `insert`; `remove` on the events is for RAW_RETENTION_DAYS alone.
    const full = leastRole()
    await makeUser(secured.server.url, database, { name: 'user', password: PASSWORD })
    const setRole = async (privileges: RoleDocument['privileges']) => {
      const some = privileges.filter(({ actions }) => actions.length > 0)
      const own = some.map(({ resource, actions }) => ({ resource: { ...resource, db: database }, actions }))
      await db.command({ updateRole: `${full.role}-user`, privileges: own })
    }
    await using opened = open({ url: urlFor(secured.server.url, database, { name: 'user' }), securityPauseMs: 0 })
    const { store } = opened
    await workThrough(store)
    let actionsTried = 0
    for (const { resource, actions } of full.privileges) {
      for (const action of actions) {
        // Indexes are made once.
        if (action === 'createIndex') await db.dropDatabase()
        await setRole(
          full.privileges.map((each) => ({
            ...each,
            actions:
              each.resource.collection === resource.collection ? actions.filter((one) => one !== action) : each.actions,
          })),
        )
        const what = `${action} on ${resource.collection || 'the database'}`
        const error: unknown = await workThrough(store).then(
          () => null,
          (each) => each,
        )
        assert.ok(error instanceof StoreError, `${what} is not needed`)
        const named = `on ${resource.collection === '' ? '' : `${resource.collection} of `}${database}`
        assert.match(
          error.message,
          /: the user may not do "\w+" on .*: grant it the role that deploy.*roles.json describes$/,
        )
        assert.ok(error.message.includes(named), `${what}: ${error.message}`)
        actionsTried += 1
      }
    }
    await setRole(full.privileges)
    await workThrough(store)
    assert.ok(actionsTried > 30, `${actionsTried}`)
    await db.dropDatabase()
  },
)

test(
  'without the right to it, events of an older version get no reach, and the line names the right',
  limit,
  async () => {
    const database = uniqueName('reach')
    const db = secured.root.db(database)
    await makeUser(secured.server.url, database, { name: 'user', password: PASSWORD })
    await using opened = open({ url: urlFor(secured.server.url, database, { name: 'user' }), securityPauseMs: 0 })
    const { store } = opened
    await store.prepare()
    await store.writeDocuments([], [token('long', 0, { interval_s: 600 })])
    await db.collection('token_usage').updateMany({}, { $unset: { pt_reach: 1 } })
    await db.collection('pt_meta').updateOne({ _id: 'format' as never }, { $set: { number: 1 } })
    await assert.rejects(store.prepare(), (error) => {
      assert.ok(error instanceof StoreError && error.retriable && error.hasRemedy)
      assert.match(
        error.message,
        /the user may not update token_usage: grant it "update" there until pertoken has started/,
      )
      return true
    })
    const update = { resource: { db: database, collection: 'token_usage' }, actions: ['update'] }
    await db.command({ grantPrivilegesToRole: `${leastRole().role}-user`, privileges: [update] })
    await store.prepare()
    assert.equal((await collect(store.ledger.readReachingTokens(T0 - 60_000, T0))).length, 1)
    await db.dropDatabase()
  },
)

test(
  'each refusal is one line that says what, where and what to do, may pass, and tells no secret',
  limit,
  async () => {
    const { server, plain, database, ca, otherCa, root } = secured
    await root.db(database).command({ createUser: 'reader', pwd: PASSWORD, roles: ['read'] })
    const user = { name: 'pertoken', password: PASSWORD }
    const urlOf = (name: string, password: string) => urlFor(server.url, database, { name, password })
    const url = urlOf('pertoken', PASSWORD)
    const withCa = (path: string | null) =>
      url.replace(/&tlsCAFile=[^&]*/, path === null ? '' : `&tlsCAFile=${encodeURIComponent(path)}`)
    const refusesLogin =
      'the server refuses the user or the password: check the user in MONGO_URL, MONGO_PASSWORD, and that '
    const notSigned =
      'is not signed by an authority that is trusted here (SELF_SIGNED_CERT_IN_CHAIN): set tlsCAFile in MONGO_URL'
    const cases: [string, Pick<MongoStoreOptions, 'url'>, string][] = [
      ['wrong password', { url: urlOf('pertoken', WRONG) }, `${refusesLogin}the user is one of database "${database}"`],
      ['unknown user', { url: urlOf('nobody', WRONG) }, refusesLogin],
      ['user of another database', { url: `${url}&authSource=admin` }, 'the user is one of database "admin"'],
      ['no login', { url: urlFor(server.url, database, null) }, 'the server wants a login: name a user in MONGO_URL'],
      [
        'reader',
        { url: urlOf('reader', PASSWORD) },
        `the user may not do "insert" on gpu_metrics of ${database}: grant it`,
      ],
      ['login at a server without users', { url: urlFor(plain.url, database, user) }, refusesLogin],
      ['another authority', { url: withCa(otherCa) }, notSigned],
      ['the authorities of Node', { url: withCa(null) }, notSigned],
      [
        'no such file',
        { url: withCa('/no/such/file') },
        "a file that MONGO_URL names as tlsCAFile or tlsCertificateKeyFile: ENOENT: no such file or directory, open '/no/such/file'",
      ],
      [
        'another name',
        { url: url.replace('127.0.0.1', 'localhost') },
        'is for IP Address:127.0.0.1, not for "localhost": use a name of its certificate',
      ],
      [
        'no TLS where it is wanted',
        { url: url.replace(/tls=.*$/, '') },
        'closed; if it wants TLS, say tls=true (and tlsCAFile=…) in MONGO_URL',
      ],
      [
        'TLS where there is none',
        { url: `${urlFor(plain.url, database, null)}?tls=true&tlsCAFile=${ca}` },
        'seems not to speak TLS, the handshake broke off: take tls=true out of MONGO_URL',
      ],
    ]
    const beRefused = async ([name, options, text]: (typeof cases)[number]) => {
      const log = new Lines()
      const store = new MongoStore({ ...options, serverSelectionTimeoutMs: 700, log })
      try {
        const marker = 'a-document-of-somebody'
        await assert.rejects(store.writeDocuments([sample('a', 0, { host: marker })], []), (error: unknown) => {
          assert.ok(error instanceof StoreError, name)
          assert.ok(error.message.includes(text), `${name}: ${error.message}`)
          assert.doesNotMatch(error.message, /\n|a-document-of-somebody/, name)
          assert.equal(error.retriable, true, name)
          for (const secret of SECRETS) {
            assert.ok(!inspect(error, { depth: 9 }).includes(secret), `${name}: a secret in the error`)
            assert.ok(!log.lines.join().includes(secret), `${name}: a secret in the log`)
          }
          return true
        })
      } finally {
        await store.close()
      }
    }
    await Promise.all(cases.map(beRefused))
  },
)

test('what a server says of our certificate or of its own is told with what to do', () => {
  const access = { authSource: null, tls: true, wasConnected: false }
  const textOf = (error: object) => securityFault({ message: 'outer', cause: error }, 'db:27017', access)?.text ?? ''
  assert.match(textOf({ code: 'CERT_HAS_EXPIRED', message: '' }), /^the certificate of db:27017 has expired: renew it/)
  assert.match(textOf({ code: 'CERT_NOT_YET_VALID', message: '' }), /is not valid yet: set the clock/)
  assert.match(
    textOf({ message: 'x: SSL alert number 116' }),
    /may want a client certificate, tlsCertificateKeyFile in/,
  )
  assert.equal(textOf({ code: 'ECONNREFUSED', message: 'connect ECONNREFUSED' }), '')
  const closed = { message: 'connection 1 to db:27017 closed' }
  assert.equal(
    closingHint(closed, { ...access, tls: false, wasConnected: true }),
    '',
    'an outage is no question of TLS',
  )
})

test(
  'a refused login is tried again slowly however often it is asked for, and goes on when it is corrected',
  limit,
  async () => {
    const { server, root } = secured
    const database = uniqueName('later')
    const user = { name: 'later-user', password: PASSWORD }
    const logins = async () => {
      const { security } = await root.db('admin').command({ serverStatus: 1, security: 1 })
      return Number(security.authentication.mechanisms['SCRAM-SHA-256'].authenticate.received)
    }
    const before = await logins()
    await using opened = open({ url: urlFor(server.url, database, { name: user.name }), securityPauseMs: 1_500 })
    const { store, lines } = opened
    const answer = () =>
      store.prepare().then(
        () => 'prepared',
        (error: Error) => error.message,
      )
    let refused = 0
    for (const untilMs = performance.now() + 2_000; performance.now() < untilMs; refused += 1) {
      assert.match(await answer(), /the server refuses the user or the password/)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    assert.ok(refused > 50, `${refused} calls were refused`)
    // Each try is one or two logins.
    const tried = (await logins()) - before
    assert.ok(tried >= 2 && tried <= 6, `${tried} logins for ${refused} calls`)
    await makeUser(server.url, database, user)
    for (const untilMs = performance.now() + 5_000; (await answer()) !== 'prepared'; ) {
      assert.ok(performance.now() < untilMs, await answer())
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await workThrough(store)
    assert.deepEqual(lines, [], 'who asked is told; the server was never lost')
    await root.db(database).dropDatabase()
  },
)

test(
  'MONGO_PASSWORD completes the URL, whatever characters it has; both together or without a user are refused',
  limit,
  async () => {
    const { server, database } = secured
    const quiet = { debug() {}, info() {}, warn() {}, error() {} }
    const load = (env: Record<string, string>) => loadConfig({ env, envFile: '', flags: {} })
    const user = urlFor(server.url, database, { name: 'pertoken' })
    const { config, problems } = load({ MONGO_URL: user, MONGO_PASSWORD: PASSWORD })
    assert.deepEqual(problems, [])
    const store = await openStore(config, quiet)
    await store.ping()
    await store.prepare()
    await store.close()
    for (const [url, text] of [
      [urlFor(server.url, database, null), 'MONGO_URL names no user'],
      [urlFor(server.url, database, { name: 'pertoken', password: WRONG }), 'MONGO_URL holds a password as well'],
    ] as const) {
      const [problem, ...others] = load({ MONGO_URL: url, MONGO_PASSWORD: PASSWORD }).problems
      assert.deepEqual(others, [])
      assert.equal(problem, `MONGO_PASSWORD is set, and ${text}: expected mongodb://USER@host/…`)
    }
  },
)

test('secrets are masked wherever the URL is shown or an error quotes it', async () => {
  const cases: [string, string][] = [
    ['mongodb://me:s3cret@db/ca0', 'mongodb://***@db/ca0'],
    ['mongodb://me:s3c%40ret@db/ca0', 'mongodb://***@db/ca0'],
    ['mongodb://me:s3cret@more@db/ca0', 'mongodb://***@db/ca0'],
    ['mongodb://me:s3cret/more@a:1,b:2/ca0', 'mongodb://***@a:1,b:2/ca0'],
    ['mongodb+srv://me:s3cret?x@db/', 'mongodb+srv://***@db/'],
    ['me:s3cret@db', '***@db'],
    [
      'mongodb://db/ca0?tls=true&tlsCertificateKeyFilePassword=s3cret&w=1',
      'mongodb://db/ca0?tls=true&tlsCertificateKeyFilePassword=***&w=1',
    ],
    ['mongodb://db/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret', 'mongodb://db/?authMechanismProperties=***'],
    ['mongodb://localhost:27017/ca0', 'mongodb://localhost:27017/ca0'],
  ]
  for (const [url, masked] of cases) assert.equal(shown('MONGO_URL', url), masked)
  assert.equal(shown('MONGO_PASSWORD', 's3cret'), '***')

  const log = new Lines()
  const wrong = [
    'mongodb://me:s3cret@x@h/',
    'mongodb://me:s3cret/x@h:1/db',
    'mongodb://me:%zzs3cret@h/',
    'mongodb://me:s3cret:x@h/',
    'mongodb://me:s3cret@h:99999/',
    'mongodb://me:s3cret@h/?tlsCaFle=x',
    'mongodb://me:s3cret@h/a.b',
  ]
  for (const url of wrong) {
    assert.throws(
      () => new MongoStore({ url, log }),
      (error: unknown) => {
        assert.ok(error instanceof StoreError, url)
        assert.doesNotMatch(inspect(error, { depth: 9 }), /s3cret/, url)
        assert.match(error.message, /^Cannot read MONGO_URL: /)
        assert.equal(
          /have to be encoded/.test(error.message),
          /@.*@|:.*\/.*@|%zz|:.*:.*@/.test(url.slice(10)),
          error.message,
        )
        return true
      },
    )
    await assert.rejects(readForeignDocuments(url).next(), (error: unknown) => {
      assert.doesNotMatch(inspect(error, { depth: 9 }), /s3cret/, url)
      return String(error).startsWith('StoreError: Cannot read the URL of --from-mongo: ')
    })
  }
})
