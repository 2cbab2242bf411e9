// `.env` as people write it and as editors save it: every line has an outcome, no password is cut in silence, and no
// message shows a part of one.

import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { kindOfName, loadConfig, shown } from '../../src/cli/config.ts'
import { checkSettings } from '../../src/cli/doctor/settings-findings.ts'
import { parseEnvFile, readEnvFile } from '../../src/cli/env-file.ts'
import { pertoken, temporaryDirectory } from '../flows/harness.ts'

const read = (text: string) => parseEnvFile(text, kindOfName)

const VALUES: [title: string, text: string, values: Record<string, string>][] = [
  ['nothing', '', {}],
  ['a byte order mark', '\uFEFFPRICE_PER_HOUR_USD=2.49\nPORT=1', { PRICE_PER_HOUR_USD: '2.49', PORT: '1' }],
  ['export, and blanks', '  export PORT = 81 \n\texport\tHOST=h', { PORT: '81', HOST: 'h' }],
  ['export of a name alone', 'PORT=1\nexport PORT\nexport A B', { PORT: '1' }],
  ['a colon, as dotenv takes it', 'PORT: 81', { PORT: '81' }],
  ['line ends of Windows', 'PORT=1\r\nHOST="h"\r\n\r\nBATCH=2\r\n', { PORT: '1', HOST: 'h', BATCH: '2' }],
  ['line ends of old Macs', 'PORT=1\rHOST=h', { PORT: '1', HOST: 'h' }],
  ['comments', '# PORT=1\n   # x\nHOST=h # the host\nBATCH=3\t# tab', { HOST: 'h', BATCH: '3' }],
  [
    '# without a blank before it',
    'MONGO_PASSWORD=pa#ss##\nAPI_TOKEN=#x',
    { MONGO_PASSWORD: 'pa#ss##', API_TOKEN: '#x' },
  ],
  ['# in a URL', 'MONGO_URL=mongodb://u:pa#ss@db/x', { MONGO_URL: 'mongodb://u:pa#ss@db/x' }],
  ['# in quotes', `MONGO_PASSWORD="a # b" # c\nAPI_TOKEN='a #b'#c`, { MONGO_PASSWORD: 'a # b', API_TOKEN: 'a #b' }],
  ['quotes in quotes', "MONGO_PASSWORD='a\"b`c'\nAPI_TOKEN=`a'b\"c`", { MONGO_PASSWORD: 'a"b`c', API_TOKEN: 'a\'b"c' }],
  ['quotes inside a bare value', `MONGO_PASSWORD=a"b'c"`, { MONGO_PASSWORD: `a"b'c"` }],
  ['blanks in quotes', 'MONGO_PASSWORD="  a  "', { MONGO_PASSWORD: '  a  ' }],
  [
    'backslashes',
    `MONGO_PASSWORD=a\\nb\\\nAPI_TOKEN='\\n'\nDATA_DIR="C:\\data\\"`,
    {
      MONGO_PASSWORD: 'a\\nb\\',
      API_TOKEN: '\\n',
      DATA_DIR: 'C:\\data\\',
    },
  ],
  ['dollar signs and equals signs', 'MONGO_PASSWORD=$a$b=c==', { MONGO_PASSWORD: '$a$b=c==' }],
  ['empty values', `PORT=\nHOST=""\nBATCH=''\nAPI_TOKEN=  # none`, { PORT: '', HOST: '', BATCH: '', API_TOKEN: '' }],
  ['a name twice: the last counts', 'PORT=1\nPORT=2', { PORT: '2' }],
  [
    'other programs’ values of several lines',
    'KEY="-----BEGIN\nabc=\n-----END"\nPORT=1',
    {
      KEY: '-----BEGIN\nabc=\n-----END',
      PORT: '1',
    },
  ],
  ['names that objects have', '__proto__=1\nconstructor=2\nPORT=3', { constructor: '2', PORT: '3' }],
]
for (const [title, text, values] of VALUES) {
  test(`.env: ${title}`, () => {
    const found = read(text)
    assert.deepEqual(found.faults, [])
    for (const [name, value] of Object.entries(values)) assert.equal(found.values[name], value, name)
  })
}

const FAULTS: [text: string, fault: RegExp][] = [
  ['PORT=1\nMONGO_PASSWORD="s3cret', /^\.env, line 2: MONGO_PASSWORD opens with ", which is not closed on its line/],
  [`MONGO_PASSWORD='s3cret\nPORT=1`, /^\.env, line 1: MONGO_PASSWORD opens with '/],
  ['MONGO_PASSWORD="s3c"ret"', /line 1: MONGO_PASSWORD has text after its closing ": put that into the quotes/],
  ['MONGO_PASSWORD="s3c\\"ret"', /line 1: MONGO_PASSWORD has text after its closing "/],
  ['MONGO_PASSWORD="s3c\\" # ret"', /line 1: MONGO_PASSWORD has text after its closing "/],
  ['DATA_DIR="C:\\new"', /line 1: DATA_DIR holds \\n or \\r in double quotes.*single quotes/],
  ['MONGO_PASSWORD=s3cr\uFFFDt', /line 1: MONGO_PASSWORD holds bytes that are not UTF-8/],
  ['PORT 8080', /line 1: PORT is not set: expected NAME=value/],
  ['set PORT=8080', /line 1: PORT is not set: expected NAME=value/],
  ['PORT:8080', /line 1: PORT is not set: expected NAME=value/],
]
for (const [text, fault] of FAULTS) {
  test(`.env: a fault, with its line and without the value: ${JSON.stringify(text)}`, () => {
    const { faults } = read(text)
    assert.equal(faults.length, 1, faults.join('\n'))
    assert.match(faults[0]!, fault)
    assert.doesNotMatch(faults[0]!, /s3c|ret"|8080|new/)
    assert.deepEqual(loadConfig({ env: {}, envFile: text, flags: {} }).problems[0], faults[0])
  })
}

test('.env: a value of another program, which is not closed, swallows no setting', () => {
  const { values, faults, remarks } = read(`NOTE="it is\nPORT=81\nEND="`)
  assert.equal(values['PORT'], '81')
  assert.deepEqual(faults, [])
  assert.equal(remarks.length, 2)
})

test('doctor names what is odd in .env: set twice, a comment behind a password, a line that is not read, other case', () => {
  const envFile = 'PORT=1\nPORT=2\nAPI_TOKEN=abc #def\nsome words\nport=3\nBATCH=1 # fine\nBATCH=1\n'
  const loaded = loadConfig({ env: {}, envFile, flags: {} })
  assert.deepEqual(loaded.problems, [])
  const lines = checkSettings(loaded, { envFile, isProducer: true }).map(({ message }) => message)
  for (const expected of [
    /^\.env, line 2: PORT is set again, other than in line 1: this one counts; delete one$/,
    /^\.env, line 3: what follows " #" after API_TOKEN is a comment: put the value in quotes/,
    /^\.env, line 4: is not read: expected NAME=value$/,
  ])
    assert.ok(
      lines.some((line) => expected.test(line)),
      `${expected} in\n${lines.join('\n')}`,
    )
  assert.equal(lines.length, 3)
  assert.doesNotMatch(lines.join('\n'), /abc|def|words/)
  const otherCase = 'price_per_hour_usd=3\n'
  const [slip] = checkSettings(loadConfig({ env: {}, envFile: otherCase, flags: {} }), {
    envFile: otherCase,
    isProducer: true,
  })
  assert.match(slip!.message, /sets price_per_hour_usd, which is no setting: did you mean PRICE_PER_HOUR_USD\?/)
})

test('.env in UTF-16 is read; a folder of that name is none', (t) => {
  const cwd = temporaryDirectory(t)
  const path = join(cwd, '.env')
  assert.equal(readEnvFile(path), '')
  for (const [name, bytes] of [
    ['utf-8', Buffer.from('\uFEFFPORT=81\n')],
    ['utf-16le', Buffer.from('\uFEFFPORT=81\n', 'utf16le')],
    ['utf-16be', Buffer.from('\uFEFFPORT=81\n', 'utf16le').swap16()],
  ] as const) {
    writeFileSync(path, bytes)
    assert.equal(read(readEnvFile(path)).values['PORT'], '81', name)
  }
  writeFileSync(path, Buffer.from('MONGO_PASSWORD=s3cr\u00e9t\n', 'latin1'))
  assert.match(read(readEnvFile(path)).faults[0]!, /not UTF-8/)
  const folder = join(cwd, 'folder')
  mkdirSync(folder)
  assert.equal(readEnvFile(folder), '')
})

test('a MongoDB URL that was cut is refused, and never shown in part', (t) => {
  const whole = 'mongodb://me:s3cretword@db.example:27017/ca0'
  for (let length = 'mongodb://me:s'.length; length < whole.indexOf('@') + 1; length++) {
    const cut = whole.slice(0, length)
    assert.doesNotMatch(String(shown('MONGO_URL', cut)), /s3c|word|:s/, cut)
    const { problems } = loadConfig({ env: { MONGO_URL: cut }, envFile: '', flags: {} })
    if (!cut.includes('@')) assert.match(problems[0] ?? '', /^MONGO_URL is "mongodb:\/\/\*\*\*": expected host/, cut)
  }
  for (const right of [
    'mongodb://db',
    'mongodb://a:1,[::1]:2/x?y=z',
    'mongodb+srv://db.example/',
    'mongodb://%2Frun%2Fx.sock',
  ])
    assert.deepEqual(loadConfig({ env: { MONGO_URL: right }, envFile: '', flags: {} }).problems, [], right)

  const cwd = temporaryDirectory(t)
  writeFileSync(join(cwd, '.env'), 'MONGO_URL=mongodb://me:s3cret#word@127.0.0.1:1/ca0\n')
  const printed = pertoken(['config', '--print'], {}, cwd)
  assert.match(printed.stdout, /^MONGO_URL=mongodb:\/\/\*\*\*@127\.0\.0\.1:1\/ca0 /m)
  const { status, stderr } = pertoken(['report'], {}, cwd)
  assert.notEqual(status, 0)
  assert.match(stderr, /Cannot read MONGO_URL: .*have to be encoded/)
  assert.doesNotMatch(printed.stdout + stderr, /s3cret|word@/)
})

const RUNS = 10_000
const seed = Number(process.env['FAST_CHECK_SEED'] ?? Date.now() % 2 ** 31)

interface Mutation {
  at: number
  remove: number
  insert: string
}
const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  remove: fc.nat(3),
  insert: fc.constantFrom(
    '',
    '"',
    "'",
    '`',
    '#',
    ' #',
    '\n',
    '\r\n',
    '=',
    ':',
    ' ',
    '\\',
    '\uFEFF',
    '\0',
    '\uFFFD',
    'export ',
    'x',
  ),
})
const mutated = (text: string, mutations: readonly Mutation[]): string =>
  mutations.reduce((now, { at, remove, insert }) => {
    const index = Math.floor(at * now.length)
    return now.slice(0, index) + insert + now.slice(index + remove)
  }, text)

test('10,000 mutated .env files: no crash, an outcome for every setting, and no part of a password in a message', (t) => {
  t.diagnostic(`FAST_CHECK_SEED=${seed}`)
  const secret = 'Tr0ub4dor-and-Zebra'
  const file = [
    '# settings',
    'export PORT=8081',
    `MONGO_PASSWORD="${secret}"`,
    'NOTE="first',
    'second"',
    "DATA_DIR='/srv/data' # where",
    `KAFKA_SASL_PASSWORD=${secret}`,
    'BATCH=',
    '',
  ].join('\n')
  const parts = Array.from({ length: secret.length - 4 }, (_, i) => secret.slice(i, i + 5))
  const ours = /^\uFEFF?\s*(?:export\s+)?(PORT|MONGO_PASSWORD|DATA_DIR|KAFKA_SASL_PASSWORD|BATCH)(?:\s*=|:\s)/
  fc.assert(
    fc.property(fc.array(mutation, { minLength: 1, maxLength: 4 }), (mutations) => {
      const text = mutated(file, mutations)
      const { values, faults, remarks } = read(text)
      for (const [i, line] of text.split(/\r\n|[\r\n]/).entries()) {
        const name = ours.exec(i === 0 ? line : line.replace(/^\uFEFF/, '\0'))?.[1]
        if (name === undefined) continue
        const isFault = faults.some((fault) => fault.startsWith(`.env, line ${i + 1}: ${name} `))
        assert.ok(isFault || values[name] !== undefined, `${name} in line ${i + 1} of ${JSON.stringify(text)}`)
      }
      const messages = [...faults, ...remarks].join('\n')
      assert.ok(!parts.some((part) => messages.includes(part)), messages)
      loadConfig({ env: {}, envFile: text, flags: {} })
    }),
    { numRuns: RUNS, seed },
  )
})

test('10,000 passwords, written in quotes that they do not hold, are read as they are', () => {
  const password = fc.string({ unit: fc.constantFrom(...' #"\'`=:@/\\$%aZ9ü\t'), minLength: 1, maxLength: 24 })
  fc.assert(
    fc.property(password, (text) => {
      const quote = ["'", '`'].find((sign) => !text.includes(sign))
      if (quote === undefined || text.endsWith('\\')) return
      assert.deepEqual(read(`MONGO_PASSWORD=${quote}${text}${quote} # x`).values['MONGO_PASSWORD'], text)
      const isBare = !/\s/.test(text) && !/^["'`]/.test(text)
      if (isBare) assert.deepEqual(read(`MONGO_PASSWORD=${text}`).values['MONGO_PASSWORD'], text)
    }),
    { numRuns: RUNS, seed },
  )
})
