// Linux' texts about sockets and processes, and what follows from them: where to ask, and which GPUs an engine has.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type GpuFinding, gpusOfEngines } from '../../../src/agent/finding/gpus-of-engine.ts'
import { parseListeningSockets, parseOwnAddresses } from '../../../src/agent/finding/listening-sockets.ts'
import { type ProcessInfo, parseStat } from '../../../src/agent/finding/process-table.ts'
import { candidatesOf, foreignCandidatesOf } from '../../../src/agent/finding/socket-candidates.ts'

test('sockets that listen are read from the tables of IPv4 and IPv6, others are not', () => {
  const rest = '00000000:00000000 00:00000000 00000000  1000        0'
  const text = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    `   0: 00000000:1F40 00000000:0000 0A ${rest} 1595 1 0000000055650aba 100 0 0 10 0`,
    `   1: 0100007F:8F01 00000000:0000 0A ${rest} 1453666 1 000000001369b183 100 0 0 10 0`,
    `   2: 0100007F:8F01 0100007F:DA7C 01 ${rest} 77 3 0000000028df44d9`,
    `   3: 0500000A:0050 00000000:0000 0A ${rest} 78 1 0 100 0 0 10 0`,
    `   4: 00000000000000000000000000000000:7530 00000000000000000000000000000000:0000 0A ${rest} 79 1 0`,
    `   5: 00000000000000000000000001000000:7531 00000000000000000000000000000000:0000 0A ${rest} 80 1 0`,
    `   6: 0000000000000000FFFF00000100007F:7532 00000000000000000000000000000000:0000 0A ${rest} 81 1 0`,
    `   7: B80D0120000000000000000001000000:7533 00000000000000000000000000000000:0000 0A ${rest} 82 1 0`,
    'garbage',
    '',
  ].join('\n')
  assert.deepEqual(
    parseListeningSockets(text).map(({ address, port, inode }) => [address, port, inode]),
    [
      ['0.0.0.0', 8000, 1595],
      ['127.0.0.1', 36_609, 1_453_666],
      ['10.0.0.5', 80, 78],
      ['[::]', 30_000, 79],
      ['[::1]', 30_001, 80],
      ['127.0.0.1', 30_002, 81],
      ['[2001:db8::1]', 30_003, 82],
    ],
  )
  assert.deepEqual(parseListeningSockets(''), [])
})

test('addresses of a namespace are those of its routing table that are its own', () => {
  const text = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
     +-- 172.17.0.0/16 2 0 2
           |-- 172.17.0.0
              /16 link UNICAST
           |-- 172.17.0.2
              /32 host LOCAL
        |-- 172.17.255.255
           /32 link BROADCAST
`
  assert.deepEqual(parseOwnAddresses(text + text), ['172.17.0.2'])
})

test('a process is read from its stat, whatever its name', () => {
  assert.deepEqual(parseStat('4711 (VLLM::Worker_TP) S 4700 4690 4690 0 -1 4194304\n'), {
    pid: 4711,
    parent: 4700,
    group: 4690,
    command: 'VLLM::Worker_TP',
  })
  assert.equal(parseStat('12 (a) b (c)) R 1 12 12 0')?.command, 'a) b (c)')
  for (const text of ['', '12', '12 (a', 'x (a) S 1 2']) assert.equal(parseStat(text), null, text)
})

const socket = (address: string, port: number, inode = port) => ({ address, port, inode })

test('a port is asked once, at loopback where it can be, and some ports never', () => {
  const sockets = [
    socket('0.0.0.0', 8000),
    socket('[::]', 8000, 1),
    socket('[::]', 8001),
    socket('10.0.0.5', 8002),
    socket('0.0.0.0', 22),
    socket('0.0.0.0', 80),
    socket('127.0.0.1', 5432),
    socket('127.0.0.1', 8419),
  ]
  assert.deepEqual(candidatesOf(sockets, new Set([8419])), [
    { inodes: [80], port: 80, urls: ['http://127.0.0.1:80/metrics'] },
    { inodes: [8000, 1], port: 8000, urls: ['http://127.0.0.1:8000/metrics', 'http://[::1]:8000/metrics'] },
    { inodes: [8001], port: 8001, urls: ['http://127.0.0.1:8001/metrics', 'http://[::1]:8001/metrics'] },
    { inodes: [8002], port: 8002, urls: ['http://10.0.0.5:8002/metrics'] },
  ])
})

test('a container is asked at its own addresses; what listens on its loopback is not reachable', () => {
  const sockets = [socket('[::]', 8000), socket('127.0.0.1', 8001), socket('172.17.0.2', 8002)]
  assert.deepEqual(foreignCandidatesOf(sockets, ['172.17.0.2', '10.1.0.2', '10.2.0.2']), {
    candidates: [
      { inodes: [8000], port: 8000, urls: ['http://172.17.0.2:8000/metrics', 'http://10.1.0.2:8000/metrics'] },
      { inodes: [8002], port: 8002, urls: ['http://172.17.0.2:8002/metrics'] },
    ],
    unreachable: [8001],
  })
})

/** `PID: [parent, group]`. */
const tableOf = (rows: Record<number, [parent: number, group: number]>): Map<number, ProcessInfo> =>
  new Map(
    Object.entries(rows).map(([pid, [parent, group]]) => [
      Number(pid),
      { pid: Number(pid), parent, group, command: 'x' },
    ]),
  )

interface Case {
  engines: number[][]
  /** Processes by GPU; null: unknown. */
  held: Record<number, number[]> | null
  processes?: Record<number, [number, number]>
  count?: number
}

function findingsOf({ engines, held, processes = {}, count = 8 }: Case): GpuFinding[] {
  const pids = held === null ? null : new Map(Object.entries(held).map(([index, all]) => [Number(index), all]))
  const indexes = Array.from({ length: count }, (_, i) => i)
  return gpusOfEngines(engines, { indexes, pids }, tableOf(processes))
}

const gpusIn = (one: Case) => findingsOf(one).map(({ gpus }) => gpus)

test('an engine has the GPUs that its process or its children hold, all of tensor parallel', () => {
  const processes: Record<number, [number, number]> = { 10: [1, 10], 11: [10, 10], 12: [11, 10], 13: [11, 10] }
  const [finding] = findingsOf({ engines: [[10]], held: { 1: [13], 0: [12] }, processes })
  assert.deepEqual(finding, { gpus: [0, 1], why: 'processes 12, 13 of it on GPU 0, 1' })
  assert.deepEqual(gpusIn({ engines: [[10]], held: { 3: [10] }, processes }), [[3]])
})

test('two engines share a GPU, each has its own, and none has the other’s', () => {
  const processes: Record<number, [number, number]> = { 10: [1, 5], 11: [10, 5], 20: [1, 5], 21: [20, 5], 30: [1, 5] }
  const held = { 0: [11, 21], 1: [21] }
  assert.deepEqual(gpusIn({ engines: [[10], [20], [30]], held, processes }), [[0], [0, 1], []])
})

test('an engine that is started by another one’s parent of all, as process 1 of a container, keeps its own', () => {
  const processes: Record<number, [number, number]> = { 1: [0, 1], 5: [1, 1], 20: [1, 20], 21: [20, 20] }
  assert.deepEqual(gpusIn({ engines: [[1], [20]], held: { 0: [5], 1: [21] }, processes }), [[0], [1]])
})

test('several API servers beside the processes that compute: those of their process group', () => {
  const processes: Record<number, [number, number]> = { 9: [1, 9], 10: [9, 9], 11: [9, 9], 12: [9, 9], 40: [1, 40] }
  const [finding] = findingsOf({ engines: [[10, 11]], held: { 2: [12], 3: [40] }, processes })
  assert.deepEqual(finding, { gpus: [2], why: 'process 12 of it on GPU 2, in the process group of its server' })
})

test('what is not known is not guessed: but for a host with one GPU', () => {
  const processes: Record<number, [number, number]> = { 10: [1, 10] }
  for (const [one, why] of [
    [{ engines: [[10]], held: null }, /known by NVML only/],
    [{ engines: [[]], held: { 0: [99] }, processes }, /its process is not visible here/],
    [{ engines: [[10]], held: { 0: [99] }, processes }, /some that are not visible here do/],
  ] as [Case, RegExp][]) {
    const [many] = findingsOf(one)
    assert.equal(many!.gpus, null)
    assert.match(many!.why, why)
    assert.match(many!.why, /; name its GPUs with --gpus$/)
    const [single] = findingsOf({ ...one, count: 1 })
    assert.deepEqual([single!.gpus, /; this host has one GPU$/.test(single!.why)], [[0], true])
  }
  assert.deepEqual(findingsOf({ engines: [[10]], held: { 0: [] }, processes, count: 1 }), [
    { gpus: [], why: 'no process of it holds a GPU' },
  ])
})

test('parents in a circle, as a process that ended meanwhile may leave them, end', () => {
  const processes: Record<number, [number, number]> = { 10: [11, 1], 11: [10, 1], 20: [1, 2] }
  assert.deepEqual(gpusIn({ engines: [[20]], held: { 0: [10] }, processes }), [[]])
})
