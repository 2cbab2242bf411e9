// NVML through the process that calls it, against a library that hangs, crashes, loses GPUs and finds them again.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { GpuSourceError } from '../../../src/agent/gpu/gpu-source.ts'
import type { NvmlChild } from '../../../src/agent/gpu/nvml/nvml-session.ts'
import { type NvmlOptions, NvmlSource, NvmlStillReading } from '../../../src/agent/gpu/nvml/nvml-source.ts'
import { standInForTests } from './stand-in.ts'

const standIn = standInForTests()
const { skip } = standIn
const LOG = join(standIn.directory, 'calls')
const FOR_EVER = 3_600_000

/** A source on a fresh log of calls, closed after the test. */
function open(t: TestContext, options: NvmlOptions = {}): NvmlSource {
  rmSync(LOG, { force: true })
  const source = new NvmlSource({ library: standIn.library(), timeoutMs: 3_000, ...options })
  t.after(() => source.close())
  return source
}

const show = (...settings: string[]) => standIn.show(`log=${LOG}`, ...settings)
const indices = async (source: NvmlSource) => (await source.read()).map(({ gpuIndex }) => gpuIndex)

/** Processes that called the library, and how often they called it by that name. */
function calls(name: string): { pids: number[]; count: number } {
  const lines = (existsSync(LOG) ? readFileSync(LOG, 'utf8') : '')
    .split('\n')
    .filter((line) => line.endsWith(` ${name}`))
  return { pids: [...new Set(lines.map((line) => Number(line.split(' ')[0])))], count: lines.length }
}

/** A process that has ended counts as gone even before its parent has asked how it ended. */
function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

async function until(what: () => boolean | Promise<boolean>, message: string, limitMs = 5_000): Promise<void> {
  for (const endMs = performance.now() + limitMs; performance.now() < endMs; ) {
    if (await what()) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.fail(`Not within ${limitMs} ms: ${message}`)
}

test('reads all GPUs again and again in one process, which initialises NVML once', { skip }, async (t) => {
  show('count=8')
  const source = open(t)
  const [first, same] = await Promise.all([source.read(), source.read()])
  assert.deepEqual(first, same)
  assert.deepEqual(await indices(source), [0, 1, 2, 3, 4, 5, 6, 7])
  assert.deepEqual(source.faults, [])
  assert.equal(calls('nvmlInit_v2').count, 1)
  assert.equal(calls('nvmlDeviceGetPowerUsage').count, 16)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(calls('nvmlInit_v2').pids[0]!, signal)
  assert.equal((await source.read()).length, 8)
  assert.equal(calls('nvmlInit_v2').count, 1, 'signals to the whole group are for the agent')
  await source.close()
  assert.equal(calls('nvmlShutdown').count, 1)
  assert.ok(!isAlive(calls('nvmlInit_v2').pids[0]!))
  await assert.rejects(source.read(), { name: 'GpuSourceError', message: /closed/ })
})

test('a call that hangs is cut off, its GPU left out, and the others go on', { skip }, async (t) => {
  show('count=3')
  const source = open(t, { timeoutMs: 1_000, gpuRetryMs: 1_500 })
  assert.deepEqual(await indices(source), [0, 1, 2])
  show('count=3', `hang.nvmlDeviceGetPowerUsage.1=${FOR_EVER}`)
  let ticks = 0
  const ticking = setInterval(() => ticks++, 10)
  const startMs = performance.now()
  assert.deepEqual(await indices(source), [0])
  clearInterval(ticking)
  assert.ok(performance.now() - startMs < 3_000, 'in time')
  assert.ok(ticks > 10, `the event loop went on: ${ticks} ticks`)
  assert.deepEqual(source.faults, [
    'GPU 1: the driver has not answered for 0.8 s; left out and tried again every 1.5 s; look for NVRM and Xid in dmesg, and restart the machine',
    'GPU 2: not read this time, as the driver failed before',
  ])
  const [hung] = calls('nvmlInit_v2').pids
  assert.deepEqual(await indices(source), [0, 2])
  assert.ok(!isAlive(hung!), 'the process that hung has gone')
  assert.equal(calls('nvmlInit_v2').pids.length, 2)
  assert.deepEqual(source.faults.length, 1)
  show('count=3')
  await until(async () => (await indices(source)).length === 3, 'GPU 1 is tried again')
  assert.deepEqual(source.faults, [])
})

test('a driver that hangs from the start fails each reading in time, with one call under way', { skip }, async (t) => {
  show(`hang.nvmlInit_v2=${FOR_EVER}`)
  const source = open(t, { timeoutMs: 300, driverRetryMs: 1_000 })
  for (let i = 0; i < 3; i++) {
    const startMs = performance.now()
    await assert.rejects(source.read(), NvmlStillReading)
    assert.ok(performance.now() - startMs < 2_000)
  }
  assert.equal(calls('nvmlInit_v2').count, 1)
  await until(async () => {
    const error = await source.read().catch((one) => one)
    return error instanceof GpuSourceError && /has not answered for 1.8 s/.test(error.message)
  }, 'the driver is given up')
  await until(() => !isAlive(calls('nvmlInit_v2').pids[0]!), 'the process that hung has gone')
  show('count=1')
  await until(async () => (await indices(source).catch(() => [])).length === 1, 'it is tried again')
})

test('nothing is asked while a process that no signal ends is still there', async (t) => {
  let started = 0
  const exited = Promise.withResolvers<string>()
  const unending = (): NvmlChild => {
    started++
    return { send: () => {}, exited: exited.promise, disconnect: () => {}, kill: () => {} }
  }
  const source = new NvmlSource({ timeoutMs: 20, driverRetryMs: 0, start: unending })
  t.after(() => source.close())
  await until(async () => /hanging call/.test((await source.read().catch((error) => error)).message), 'it is said')
  await assert.rejects(source.read(), { message: /nothing is asked before it returns; .* restart the machine/ })
  assert.equal(started, 1)
  exited.resolve('ended at last')
  await until(async () => {
    await source.read().catch(() => {})
    return started === 2
  }, 'it goes on afterwards')
})

test('a driver that crashes takes nobody with it', { skip }, async (t) => {
  show('count=3', 'crash.nvmlDeviceGetPowerUsage.2=1')
  const source = open(t)
  assert.deepEqual(await indices(source), [0, 1])
  assert.match(source.faults.join(), /^GPU 2: the process that calls NVML ended by SIGSEGV; left out and tried again/)
  assert.deepEqual(await indices(source), [0, 1])
})

test('a GPU that disappears is named by its UUID, the others go on, and it is found again', { skip }, async (t) => {
  show('count=3')
  const source = open(t, { reopenMs: 50 })
  assert.deepEqual(await indices(source), [0, 1, 2])
  show('count=3', 'code.nvmlDeviceGetHandleByIndex_v2.2=15')
  assert.deepEqual(await indices(source), [0, 1])
  assert.match(source.faults.join('|'), /^GPU 2: nvmlDeviceGetHandleByIndex_v2 failed with 15, GPU is lost: [^|]*$/)
  const once = source.faults
  await indices(source)
  assert.deepEqual(source.faults, once, 'the same words each time, so that a log can say it once')
  show('count=2', 'code.nvmlDeviceGetHandleByIndex_v2.2=15')
  await until(async () => {
    await source.read()
    return source.faults.some((one) => one.includes('is gone'))
  }, 'NVML is initialised anew')
  assert.deepEqual(await indices(source), [0, 1])
  assert.deepEqual(source.faults, [
    'GPU 2 (NVIDIA H100 80GB HBM3, GPU-00000002-0000-4000-8000-000000000000) is gone: it was read before and is not listed now; look for Xid in dmesg',
  ])
  show('count=3')
  await until(async () => (await indices(source)).length === 3, 'it is found again')
  assert.deepEqual(source.faults, [])
  const { count } = calls('nvmlInit_v2')
  await indices(source)
  assert.equal(calls('nvmlInit_v2').count, count, 'NVML is left as it is once all are there')
})

test('NVML that was shut down under our feet is initialised again', { skip }, async (t) => {
  show('count=3', 'forget.nvmlDeviceGetPowerUsage.1=1')
  const source = open(t)
  assert.deepEqual(await indices(source), [0, 1, 2])
  assert.deepEqual(source.faults, [])
  assert.equal(calls('nvmlInit_v2').count, 2)
  show('code.nvmlDeviceGetPowerUsage=1')
  await assert.rejects(source.read(), { name: 'GpuSourceError', message: /failed with 1\b/ })
})

test('a driver that fails as a whole is left alone for a while, then loaded by a new process', { skip }, async (t) => {
  show()
  const source = open(t, { driverRetryMs: 400 })
  assert.equal((await source.read()).length, 2)
  show('code.nvmlDeviceGetUUID.0=18')
  await assert.rejects(source.read(), {
    message: /failed with 18, Driver\/library version mismatch: .* restart the machine/,
  })
  assert.equal(source.faults.length, 1)
  show()
  await assert.rejects(source.read(), { message: /failed with 18/ })
  assert.equal(calls('nvmlInit_v2').count, 1, 'nothing was tried meanwhile')
  await until(async () => (await indices(source).catch(() => [])).length === 2, 'it is tried again')
  assert.equal(calls('nvmlInit_v2').pids.length, 2)
})

test('when no GPU can be read, the error says why of each', { skip }, async (t) => {
  show('code.nvmlDeviceGetHandleByIndex_v2=16', 'code.nvmlDeviceGetHandleByIndex_v2.1=4')
  const source = open(t)
  await assert.rejects(source.read(), {
    name: 'GpuSourceError',
    message: /^Cannot read any GPU by NVML: GPU 0: .*--gpu-reset.*; GPU 1: .*\/dev\/nvidia\*; left out$/,
  })
})

for (const way of ['close', 'exit', 'return']) {
  test(`a process that ends by ${way} on SIGTERM ends at once while the driver hangs`, { skip }, async (t) => {
    show(`hang.nvmlDeviceGetCount_v2=${FOR_EVER}`)
    const { agent, hungPid } = await startAgent(t, way)
    const startMs = performance.now()
    agent.kill('SIGTERM')
    const [code] = await agent.ended
    // A process that merely returns stays for what it waits for: the reading, which has its limit of 1 s.
    const tookMs = performance.now() - startMs
    assert.ok(tookMs < 4_000, `${tookMs} ms`)
    assert.equal(code, 0)
    await until(() => !isAlive(hungPid), 'the process that calls NVML has gone')
  })
}

test('the process that calls NVML ends with an agent that was killed, though the driver hangs', { skip }, async (t) => {
  show(`hang.nvmlDeviceGetCount_v2=${FOR_EVER}`)
  const { agent, hungPid } = await startAgent(t, 'close')
  agent.kill('SIGKILL')
  await agent.ended
  await until(() => !isAlive(hungPid), 'the process that calls NVML has gone')
})

async function startAgent(t: TestContext, way: string) {
  rmSync(LOG, { force: true })
  const script = new URL('reading-agent.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [script, standIn.library(), way], { stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = new Promise<[number | null, string | null]>((resolve) => {
    child.once('exit', (code, signal) => resolve([code, signal]))
  })
  t.after(() => child.kill('SIGKILL'))
  await until(() => calls('nvmlDeviceGetCount_v2').count === 1, 'the driver hangs')
  return {
    agent: { kill: (signal: NodeJS.Signals) => child.kill(signal), ended },
    hungPid: calls('nvmlInit_v2').pids[0]!,
  }
}

test('who holds which GPU is listed now and then, and is not known where one GPU cannot list it', {
  skip,
}, async (t) => {
  show('count=2', 'pids.0=10,11')
  const source = open(t, { holdersMs: FOR_EVER })
  assert.equal(source.holders, null)
  await source.read()
  await source.read()
  assert.deepEqual(
    [...source.holders!],
    [
      [0, [10, 11]],
      [1, []],
    ],
  )
  assert.equal(calls('nvmlDeviceGetComputeRunningProcesses_v3').count, 2, 'once a GPU')
  show('count=2', 'pids.0=10,11', 'code.nvmlDeviceGetComputeRunningProcesses_v3.1=4')
  const other = open(t, { holdersMs: 0 })
  await other.read()
  assert.deepEqual([other.holders, other.faults], [null, []])
  show('count=2', 'pids.0=10,11', 'code.nvmlDeviceGetHandleByIndex_v2.1=15')
  await other.read()
  assert.deepEqual([...other.holders!], [[0, [10, 11]]], 'a lost GPU is held by none')
})
