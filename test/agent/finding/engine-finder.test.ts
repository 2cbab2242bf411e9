// The finder on a made-up /proc with made-up answers, for what this machine cannot be made to be; and on the real one,
// with a server of its own that speaks like an engine.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { fetchPage, PageError } from '../../../src/agent/exposition/fetch-page.ts'
import { EngineFinder } from '../../../src/agent/finding/engine-finder.ts'
import type { GpuHolders } from '../../../src/agent/finding/gpus-of-engine.ts'
import { ProcReader } from '../../../src/agent/finding/proc-reader.ts'
import { temporaryDirectory } from '../agent-fixture.ts'

const PAGE = '# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total 1\n'
const speaksEngine = (page: string) => (page.includes('vllm:') ? 'vllm' : null)

interface Fake {
  /** What listens here: port → inode. */
  sockets: Record<number, number>
  /** Processes: pid → parent, command, inodes of its sockets; `net`: ports of a network of its own, at 172.17.0.PID. */
  processes?: Record<
    number,
    { parent?: number; command?: string; inodes?: number[]; net?: Record<string, number>; device?: boolean }
  >
  /** Process ids by GPU. */
  held?: Record<number, number[]> | null
  gpus?: number
  /** Answers by `host:port`; a number is a status, nothing refuses. */
  answers: Record<string, string | number>
  isContained?: boolean
}

const tableOf = (sockets: [host: string, port: number, inode: number][]) =>
  [
    'head',
    ...sockets.map(([host, port, inode], i) => {
      const address = host
        .split('.')
        .reverse()
        .map((byte) => Number(byte).toString(16).padStart(2, '0'))
        .join('')
        .toUpperCase()
      const hex = port.toString(16).padStart(4, '0').toUpperCase()
      return `   ${i}: ${address}:${hex} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1 0`
    }),
    '',
  ].join('\n')

function fakeProc(root: string, { sockets, processes = {}, isContained = false }: Fake): ProcReader {
  const write = (path: string, text: string) => {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  const own = Object.entries(sockets).map(
    ([port, inode]) => ['0.0.0.0', Number(port), inode] as [string, number, number],
  )
  write('net/tcp', tableOf(own))
  mkdirSync(join(root, 'self/ns'), { recursive: true })
  symlinkSync(isContained ? 'pid:[4026532001]' : 'pid:[4026531836]', join(root, 'self/ns/pid'))
  for (const [pid, { parent = 1, command = 'python3', inodes = [], net, device = false }] of Object.entries(
    processes,
  )) {
    write(`${pid}/stat`, `${pid} (${command}) S ${parent} ${pid} ${pid} 0 -1`)
    mkdirSync(join(root, pid, 'fd'), { recursive: true })
    for (const [i, inode] of inodes.entries()) symlinkSync(`socket:[${inode}]`, join(root, pid, 'fd', String(i)))
    if (device) symlinkSync('/dev/nvidia0', join(root, pid, 'fd', '99'))
    const foreign = Object.entries(net ?? {}).map(([at, inode]) => {
      const [host, port] = at.includes(':') ? at.split(':') : ['0.0.0.0', at]
      return [host!, Number(port), inode] as [string, number, number]
    })
    write(`${pid}/net/tcp`, tableOf(net === undefined ? own : foreign))
    write(`${pid}/net/fib_trie`, `  |-- 172.17.0.${pid}\n     /32 host LOCAL\n`)
  }
  return new ProcReader(root)
}

function fake(t: TestContext, setup: Fake) {
  const asked: string[] = []
  const clock = { nowMs: 0 }
  const finder = new EngineFinder({
    speaksEngine,
    holders: () => holdersOf(setup),
    proc: fakeProc(temporaryDirectory(t), setup),
    nowMs: () => clock.nowMs,
    fetch: async (url) => {
      asked.push(url.host)
      const answer = setup.answers[url.host]
      if (answer === undefined) throw new PageError('unreachable', 'refused')
      if (typeof answer === 'number') throw new PageError('status', `answered ${answer}`, answer)
      return answer
    },
  })
  return { finder, asked, clock, find: () => finder.find() }
}

function holdersOf({ held = null, gpus = 8 }: Pick<Fake, 'held' | 'gpus'>): GpuHolders {
  const pids = held === null ? null : new Map(Object.entries(held).map(([index, all]) => [Number(index), all]))
  return { indexes: Array.from({ length: gpus }, (_, i) => i), pids }
}

test('an engine is found, with the process that listens and the GPUs of its children', async (t) => {
  const { find, asked } = fake(t, {
    sockets: { 8000: 801, 9999: 901, 22: 1 },
    processes: { 10: { command: 'vllm', inodes: [801] }, 11: { parent: 10 }, 12: { parent: 10 } },
    held: { 0: [11], 1: [12] },
    answers: { '127.0.0.1:8000': PAGE, '127.0.0.1:9999': 'hello' },
  })
  const engine = {
    url: 'http://127.0.0.1:8000/metrics',
    engine: 'vllm',
    gpus: [0, 1],
    why: 'vllm of process 10 (vllm); processes 11, 12 of it on GPU 0, 1',
  }
  assert.deepEqual(await find(), { engines: [engine], notes: [] })
  assert.deepEqual(await find(), { engines: [engine], notes: [] })
  assert.deepEqual(asked, ['127.0.0.1:8000', '127.0.0.1:9999'], 'each once, and port 22 never')
})

test('servers that share a socket are one engine, with the GPUs of all of them', async (t) => {
  const { find } = fake(t, {
    sockets: { 8000: 801 },
    processes: { 10: { inodes: [801] }, 11: { inodes: [801] }, 12: { parent: 10 }, 13: { parent: 11 } },
    held: { 0: [12], 4: [13] },
    answers: { '127.0.0.1:8000': PAGE },
  })
  assert.deepEqual(
    (await find()).engines.map(({ url, gpus }) => [url, gpus]),
    [['http://127.0.0.1:8000/metrics', [0, 4]]],
  )
})

test('what is no engine is asked again, less and less often; what loads a model soon', async (t) => {
  const setup = {
    sockets: { 8000: 1, 8001: 2, 8002: 3 },
    answers: {
      '127.0.0.1:8000': 'hello',
      '127.0.0.1:8001': 503,
      '127.0.0.1:8002': '# TYPE a gauge\na 1\n',
    } as Fake['answers'],
  }
  const { find, asked, clock } = fake(t, setup)
  for (; clock.nowMs < 1_000_000; clock.nowMs += 10_000) await find()
  const times = (port: number) => asked.filter((host) => host.endsWith(`:${port}`)).length
  assert.deepEqual([times(8000), times(8001), times(8002)], [7, 100, 19])
  setup.answers['127.0.0.1:8001'] = PAGE
  assert.deepEqual(
    (await find()).engines.map(({ url }) => url),
    ['http://127.0.0.1:8001/metrics'],
  )
})

test('of many ports some are asked in each round, and that is stated', async (t) => {
  const sockets = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [20_000 + i, i + 1]))
  const { find, asked } = fake(t, { sockets, answers: {} })
  assert.deepEqual((await find()).notes, ['36 more ports listen here: they are asked in the next rounds'])
  assert.deepEqual((await find()).notes, [])
  assert.equal(new Set(asked).size, 100)
})

test('a forwarder, and a second port of one process, are not read: tokens would count twice', async (t) => {
  const { find } = fake(t, {
    sockets: { 7999: 1, 8000: 2, 8001: 3, 8002: 4 },
    processes: {
      5: { command: 'nginx', inodes: [1] },
      6: { command: 'vllm', inodes: [2, 3] },
      7: { command: 'ssh', inodes: [4] },
    },
    answers: { '127.0.0.1:7999': PAGE, '127.0.0.1:8000': PAGE, '127.0.0.1:8001': PAGE, '127.0.0.1:8002': PAGE },
  })
  const { engines, notes } = await find()
  assert.deepEqual(
    engines.map(({ url }) => url),
    ['http://127.0.0.1:8000/metrics'],
  )
  assert.deepEqual(notes, [
    'vllm at http://127.0.0.1:7999/metrics is not read: nginx forwards there; name the engine itself with --engine URL',
    'vllm at http://127.0.0.1:8001/metrics is not read: it is the same process as http://127.0.0.1:8000/metrics',
    'vllm at http://127.0.0.1:8002/metrics is not read: ssh forwards there; name the engine itself with --engine URL',
  ])
})

test('an engine in a container is read there, not at its published port; without NVML at its published port', async (t) => {
  const setup: Fake = {
    sockets: { 8000: 1 },
    processes: {
      5: { command: 'docker-proxy', inodes: [1] },
      6: { command: 'vllm', inodes: [50], net: { 8000: 50, '127.0.0.1:8001': 51 } },
      7: { parent: 6, net: { 8000: 50, '127.0.0.1:8001': 51 } },
    },
    held: { 3: [7] },
    answers: { '127.0.0.1:8000': PAGE, '172.17.0.7:8000': PAGE },
  }
  const { engines, notes } = await fake(t, setup).find()
  assert.deepEqual(engines, [
    {
      url: 'http://172.17.0.7:8000/metrics',
      engine: 'vllm',
      gpus: [3],
      why: 'vllm of process 6 (vllm) in a container; process 7 of it on GPU 3',
    },
  ])
  assert.match(notes[0]!, /^Port 8001 of the container of process 7, which holds a GPU, cannot be reached from here/)
  assert.match(
    notes[1]!,
    /^vllm at http:\/\/127\.0\.0\.1:8000\/metrics is not read: it is a container's published port/,
  )
  const without = await fake(t, { ...setup, held: null }).find()
  assert.deepEqual(
    without.engines.map(({ url, gpus }) => [url, gpus]),
    [['http://127.0.0.1:8000/metrics', null]],
  )
})

test('in a container the driver’s process ids count only where the process has a GPU open', async (t) => {
  const setup: Fake = {
    sockets: { 8000: 1 },
    processes: { 10: { command: 'vllm', inodes: [1], device: true }, 11: { parent: 10 } },
    answers: { '127.0.0.1:8000': PAGE },
    isContained: true,
  }
  const gpus = async (held: Record<number, number[]>, count = 8) =>
    (await fake(t, { ...setup, held, gpus: count }).find()).engines[0]!.gpus
  assert.deepEqual(await gpus({ 2: [10] }), [2])
  assert.deepEqual(await gpus({ 2: [11] }), null)
  assert.deepEqual(await gpus({ 0: [11] }, 1), [0])
  assert.deepEqual(await gpus({ 0: [0] }, 1), [0])
})

test('a GPU that is in use without an engine is stated, with what to do', async (t) => {
  const { find } = fake(t, { sockets: {}, processes: { 7: { command: 'sglang' } }, held: { 0: [7] }, answers: {} })
  assert.deepEqual(await find(), {
    engines: [],
    notes: [
      'GPU 0 is held by process 7 (sglang) and no engine was found for it; if it is one, start it with its metrics (SGLang: --enable-metrics, llama.cpp: --metrics), or name it with --engine URL',
    ],
  })
})

test('an engine that is gone is not found, and one that comes to its port is', async (t) => {
  const directory = temporaryDirectory(t)
  const setup: Fake = { sockets: { 8000: 1 }, answers: { '127.0.0.1:8000': PAGE } }
  const proc = fakeProc(directory, setup)
  let page = PAGE
  const finder = new EngineFinder({ speaksEngine, holders: () => holdersOf({}), proc, fetch: async () => page })
  const found = async () => (await finder.find()).engines.length
  assert.equal(await found(), 1)
  page = 'other'
  assert.equal(await found(), 1, 'the same socket')
  writeFileSync(join(directory, 'net/tcp'), tableOf([['0.0.0.0', 8000, 2]]))
  assert.equal(await found(), 0, 'another socket')
  page = PAGE
  writeFileSync(join(directory, 'net/tcp'), tableOf([['0.0.0.0', 8000, 3]]))
  assert.equal(await found(), 1)
})

test('without /proc it states what to do', async (t) => {
  const finder = new EngineFinder({
    speaksEngine,
    holders: () => holdersOf({}),
    proc: new ProcReader(join(temporaryDirectory(t), 'none')),
  })
  assert.deepEqual(await finder.find(), {
    engines: [],
    notes: ['Engines are found on Linux only, by /proc: name one with --engine URL'],
  })
})

test('another user’s descriptors may not be read: that is counted, and no error', async (t) => {
  if (process.platform !== 'linux') return t.skip('only Linux has /proc')
  const file = new URL('../../../src/agent/finding/proc-reader.ts', import.meta.url).href
  const code = `import(${JSON.stringify(file)}).then(async ({ ProcReader }) => {
    const { denied } = await new ProcReader().owners(new Set())
    console.log(denied)
  })`
  // Root may read all: then as nobody.
  const as = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
  const reader = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'pipe'], ...as })
  const [output] = await Promise.race([once(reader.stdout, 'data'), once(reader, 'exit').then(() => [null])])
  if (output === null) return t.skip('this repository may not be read by another user')
  assert.ok(Number(String(output)) > 0, String(output))
})

test('a real network namespace of its own is seen through its process', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root may make a network namespace')
  const code = "require('http').createServer().listen(8000, function () { console.log('ready') })"
  const server = spawn('unshare', ['--net', process.execPath, '-e', code], { stdio: ['ignore', 'pipe', 'ignore'] })
  t.after(() => server.kill())
  const [output] = await Promise.race([once(server.stdout, 'data'), once(server, 'close').then(() => [null])])
  if (output === null) return t.skip('this machine allows none')
  const finder = new EngineFinder({
    speaksEngine,
    holders: () => holdersOf({ held: { 0: [server.pid!] } }),
    // What else listens on this machine is none of this test's; it may have begun just now.
    fetch: async () => {
      throw new PageError('unreachable', 'not of this test')
    },
    ownPorts: new ProcReader().sockets().map(({ port }) => port),
  })
  const found = await finder.find()
  assert.deepEqual(found.engines, [])
  const notes = found.notes.filter((note) => note.includes(`process ${server.pid}`))
  assert.equal(notes.length, 2, notes.join())
  assert.match(notes[0]!, new RegExp(`^Port 8000 of the container of process ${server.pid}, which holds a GPU, cannot`))
  assert.match(notes[1]!, new RegExp(`^GPU 0 is held by process ${server.pid} `))
})

test('a real server on this machine is found by its socket, and its child holds its GPU', async (t) => {
  if (process.platform !== 'linux') return t.skip('only Linux has /proc')
  const code = `
    const child = require('child_process').spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' })
    require('http').createServer((q, r) => r.end(${JSON.stringify(PAGE)}))
      .listen(0, '127.0.0.1', function () { console.log(this.address().port, child.pid) })
    process.on('SIGTERM', () => { child.kill('SIGKILL'); process.exit() })`
  const server = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => server.kill())
  const [port, child] = String((await once(server.stdout, 'data'))[0])
    .trim()
    .split(' ')
    .map(Number) as [number, number]
  const finder = new EngineFinder({
    speaksEngine,
    holders: () => holdersOf({ held: { 5: [child] } }),
    // What else listens on this machine is none of this test's.
    fetch: async (url, options) => {
      if (Number(url.port) !== port) throw new PageError('unreachable', 'not of this test')
      return fetchPage(url, options)
    },
  })
  let found = await finder.find()
  while (found.notes.some((note) => note.includes('more ports'))) found = await finder.find()
  const [{ why, ...engine } = assert.fail('none was found')] = found.engines
  assert.deepEqual(engine, { url: `http://127.0.0.1:${port}/metrics`, engine: 'vllm', gpus: [5] })
  assert.match(why, new RegExp(`^vllm of process ${server.pid} \\(.+\\); process ${child} of it on GPU 5$`))
})
