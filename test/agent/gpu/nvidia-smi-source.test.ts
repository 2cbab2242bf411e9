// The nvidia-smi command, played by small scripts: each way in which it fails is its own error, in time, and passes.

import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { type NvidiaSmiOptions, NvidiaSmiSource } from '../../../src/agent/gpu/nvidia-smi-source.ts'

const directory = mkdtempSync(join(tmpdir(), 'pertoken-smi-'))
after(() => rmSync(directory, { recursive: true, force: true }))
const FIXTURES = new URL('fixtures', import.meta.url).pathname
const LOG = join(directory, 'log')
const GPUS = `cat ${FIXTURES}/two-gpus.csv`

let scripts = 0

/** A command that runs these lines of shell, and a source on it. Every run notes its arguments in LOG. */
function fake(t: TestContext, lines: string, options: NvidiaSmiOptions = {}) {
  const path = join(directory, `nvidia-smi-${scripts++}`)
  rmSync(LOG, { force: true })
  const play = (script: string) => writeFileSync(path, `#!/bin/sh\necho "$*" >> ${LOG}\n${script}\n`)
  play(lines)
  chmodSync(path, 0o755)
  const source = new NvidiaSmiSource({ path, timeoutMs: 5_000, ...options })
  t.after(() => source.close())
  return { source, path, play }
}

const runs = () => (existsSync(LOG) ? readFileSync(LOG, 'utf8').trim().split('\n') : [])
const utilizations = async (source: NvidiaSmiSource) => (await source.read()).map(({ utilization }) => utilization)

test('asks for all it needs in one run, and tells no energy', async (t) => {
  const { source } = fake(t, GPUS)
  const readings = await source.read()
  assert.deepEqual(
    readings.map(({ gpuIndex, utilization, energyJ }) => [gpuIndex, utilization, energyJ]),
    [
      [0, 0.83, null],
      [1, 0, null],
    ],
  )
  assert.deepEqual(source.faults, [])
  assert.deepEqual(runs(), [
    '--query-gpu=index,uuid,name,utilization.gpu,memory.used,memory.total,power.draw,mig.mode.current --format=csv',
  ])
})

test('the list is asked for the profiles of split GPUs only, and not each time', async (t) => {
  const split = `if [ "$1" = -L ]; then cat ${FIXTURES}/split.L.txt; else cat ${FIXTURES}/split.csv; fi`
  const { source, play } = fake(t, split, { migMs: 0 })
  const profiles = async () => (await source.read()).map(({ migProfile }) => migProfile)
  assert.deepEqual(await profiles(), [null, '4g.40gb,1g.10gb+me', null])
  assert.equal(runs().length, 2)
  play(`if [ "$1" = -L ]; then echo no >&2; exit 4; else cat ${FIXTURES}/split.csv; fi`)
  assert.deepEqual(await profiles(), [null, null, null])
  assert.match(source.faults.join(), /^MIG profiles are not known: .* exited with 4: "no"; this user may not open/)

  const remembering = fake(t, split)
  await remembering.source.read()
  await remembering.source.read()
  assert.deepEqual(runs().filter((args) => args === '-L').length, 1)
})

test('an old nvidia-smi that refuses a field is asked for the few that all know, from then on', async (t) => {
  const { source } = fake(
    t,
    `case "$1" in *mig.mode*) echo 'Field "mig.mode.current" is not a valid field to query.'; exit 2;; *) ${GPUS};; esac`,
  )
  assert.deepEqual(await utilizations(source), [0.83, 0])
  assert.deepEqual(source.faults, [])
  await source.read()
  assert.equal(runs().length, 3)
  assert.equal(
    runs()[2],
    '--query-gpu=index,uuid,name,utilization.gpu,memory.used,memory.total,power.draw --format=csv',
  )
})

const FAULTS: [name: string, script: string, message: RegExp][] = [
  [
    'driver missing',
    'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver. Make sure"; exit 9',
    /exited with 9: "NVIDIA-SMI has failed .*"; the NVIDIA driver is not loaded; load it \(modprobe nvidia\)/,
  ],
  [
    'driver missing, exit 0',
    'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."',
    /the NVIDIA driver is not loaded/,
  ],
  [
    'no devices',
    'echo "No devices were found"; exit 6',
    /exited with 6: "No devices were found"; the driver finds no GPU; .*--gpus all/,
  ],
  [
    'no devices, exit 0',
    'echo "No devices were found"',
    /gave no GPU: "No devices were found"; the driver finds no GPU/,
  ],
  [
    'version mismatch',
    'echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18',
    /different versions.*restart the machine/,
  ],
  [
    'NVML lost its devices',
    'echo "Failed to initialize NVML: Unknown Error"; exit 255',
    /exited with 255: "Failed to initialize NVML: Unknown Error"; a container that lost its devices .* restart the container/,
  ],
  [
    'access blocked',
    'echo "Failed to initialize NVML: GPU access blocked by the operating system"; exit 17',
    /the system denies access to the GPU: under WSL update/,
  ],
  [
    'no handle',
    'echo "Unable to determine the device handle for GPU0000:20:00.0: Unknown Error"; exit 255',
    /a GPU does not respond/,
  ],
  ['exit code alone', 'exit 4', /exited with 4; this user may not open the devices/],
  [
    'library missing',
    'echo "NVIDIA-SMI couldn\'t find libnvidia-ml.so library in your system." >&2; exit 12',
    /a library of the NVIDIA driver is missing/,
  ],
  ['unknown exit', 'echo odd >&2; exit 77', /exited with 77: "odd"; run it by hand/],
  ['nothing', 'exit 0', /nvidia-smi gave no GPU; run it by hand/],
  ['header only', `head -1 ${FIXTURES}/two-gpus.csv`, /nvidia-smi gave no GPU: "timestamp, index, .*"; run it by hand/],
  [
    'bad rows only',
    'echo "index, uuid"; echo "1, 2, 3"',
    /gave no GPU.*the row "1, 2, 3" has 3 columns, expected 2; left out/,
  ],
  ['killed', 'kill -KILL $$', /nvidia-smi was killed by SIGKILL; see whether memory ran out/],
  ['crashed', 'echo half; kill -SEGV $$', /nvidia-smi was killed by SIGSEGV: "half"/],
  [
    '10 MB long',
    'head -c 10000000 /dev/zero | tr "\\0" x',
    /wrote over 1048576 bytes and was ended, expected one row for each GPU; see what ".*" is/,
  ],
  ['10 MB of errors', 'head -c 10000000 /dev/zero | tr "\\0" x >&2', /wrote over 1048576 bytes/],
]

test('each way to fail is an error of its own, with what to do; and it passes', async (t) => {
  for (const [name, script, message] of FAULTS) {
    const { source, play } = fake(t, script)
    await assert.rejects(source.read(), { name: 'GpuSourceError', message }, name)
    assert.equal(source.faults.length, 1, name)
    assert.ok(source.faults[0]!.length < 600, `${name}: ${source.faults[0]}`)
    play(GPUS)
    assert.deepEqual(await utilizations(source), [0.83, 0], `${name}, then well`)
    assert.deepEqual(source.faults, [])
  }
})

test('a command that is missing, may not be run or cannot exist says so', async (t) => {
  const { source, path } = fake(t, GPUS)
  chmodSync(path, 0o644)
  await assert.rejects(source.read(), { name: 'GpuSourceError', message: /cannot be run \(EACCES\)/ })
  rmSync(path)
  await assert.rejects(source.read(), { message: /was not found; install the NVIDIA driver, or say where/ })
  const empty = new NvidiaSmiSource({ path: '' })
  await assert.rejects(empty.read(), { name: 'GpuSourceError', message: /"" cannot be run/ })
  await empty.close()
})

test('words and exit codes beside rows are notices, unless they name a broken GPU or driver', async (t) => {
  const { source, play } = fake(t, `echo "WARNING: infoROM is corrupted at gpu 0000:B3:00.0"; ${GPUS}; exit 14`)
  assert.deepEqual(await utilizations(source), [0.83, 0])
  assert.deepEqual(source.faults, [])
  assert.match(
    source.notices.join('|'),
    /line "WARNING: infoROM .* is no row, left out; .*\|.*exited with 14; the figures/,
  )
  for (const noise of ['echo "WARNING: something is odd" >&2', 'exit 255', 'exit 77']) {
    play(`${GPUS}; ${noise}`)
    assert.deepEqual(await utilizations(source), [0.83, 0], noise)
    assert.deepEqual([source.faults, source.notices.length], [[], 1], noise)
  }
  play(`${GPUS}; echo "Unable to determine the device handle for GPU2: 0000:4B:00.0: GPU is lost."; exit 15`)
  assert.deepEqual(await utilizations(source), [0.83, 0])
  assert.match(
    source.faults.join('|'),
    /Unable to determine .* left out; a GPU fell off.*\|.*exited with 15; a GPU fell/,
  )
  assert.deepEqual(source.notices, [])
  play('exit 15')
  await assert.rejects(source.read())
  assert.deepEqual(source.notices, [])
})

test('an advisory exit code of the list does not cost the profiles of split GPUs', async (t) => {
  const list = `cat ${FIXTURES}/split.L.txt; exit 14`
  const { source } = fake(t, `if [ "$1" = -L ]; then ${list}; else cat ${FIXTURES}/split.csv; fi`)
  assert.deepEqual((await source.read())[1]!.migProfile, '4g.40gb,1g.10gb+me')
  assert.deepEqual(source.faults, [])
})

test('one that hangs is ended in time with what it started, and the event loop goes on', async (t) => {
  const pids = join(directory, 'pids')
  const { source, play } = fake(t, `sleep 3600 & echo $! $$ > ${pids}; echo half; wait`, { timeoutMs: 1_000 })
  let ticks = 0
  const ticking = setInterval(() => ticks++, 10)
  const startMs = performance.now()
  await assert.rejects(source.read(), {
    message: /has not answered within 1 s and was ended: "half"; the driver may hang/,
  })
  clearInterval(ticking)
  assert.ok(performance.now() - startMs < 3_000)
  assert.ok(ticks > 10, `${ticks} ticks`)
  for (const pid of readFileSync(pids, 'utf8').trim().split(' '))
    await until(() => !isAlive(Number(pid)), `${pid} has ended`)
  play(GPUS)
  assert.deepEqual(await utilizations(source), [0.83, 0])
})

test('a source that is closed ends the run under way at once', async (t) => {
  const { source } = fake(t, 'sleep 3600')
  const reading = assert.rejects(source.read(), { message: /the source is closed/ })
  await until(() => runs().length === 1, 'it runs')
  const startMs = performance.now()
  await source.close()
  await reading
  assert.ok(performance.now() - startMs < 2_000)
  await assert.rejects(source.read(), { message: /the source is closed/ })
})

test('a GPU that is gone is named until it is back', async (t) => {
  const { source, play } = fake(t, GPUS)
  await source.read()
  play(`${GPUS} | head -2`)
  assert.deepEqual(await utilizations(source), [0.83])
  assert.deepEqual(source.faults, [
    'GPU 1 (NVIDIA L40S, GPU-5a0e1c11-0000-4000-8000-000000000002) is gone: it was read before and is not listed now; look for Xid in dmesg',
  ])
  play(GPUS)
  await source.read()
  assert.deepEqual(source.faults, [])
})

function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

async function until(what: () => boolean, message: string): Promise<void> {
  for (const endMs = performance.now() + 5_000; performance.now() < endMs; ) {
    if (what()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  assert.fail(`Not within 5 s: ${message}`)
}
