// `pertoken agent` as a person meets it: without a GPU, with wrong words, once, beside another; doctor's lines about
// GPUs; and the processor that publishes its own host's samples, which are never the seed's.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { storedSamples } from '../flows/agent/agent-process.ts'
import { type Env, pertoken, startService, temporaryDirectory, until } from '../flows/harness.ts'

const SEED = new URL('../../examples/gpu_seed.json', import.meta.url).pathname

/** A machine without GPUs, whatever this one has. */
function bare(directory: string): Env {
  return {
    AGENT_ENGINE: 'off',
    DATA_DIR: join(directory, 'data'),
    NVML_LIBRARY: '/none/libnvidia-ml.so.1',
    NVIDIA_SMI: '/none/nvidia-smi',
  }
}

/** A machine with one GPU that only nvidia-smi tells of. */
function withGpu(directory: string): Env {
  const command = join(directory, 'nvidia-smi')
  const head =
    'index, uuid, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], power.draw [W], pci.bus_id, mig.mode.current'
  const row = '0, GPU-1, NVIDIA L4, 37 %, 1024 MiB, 23034 MiB, 41.50 W, 00000000:01:00.0, [N/A]'
  writeFileSync(command, `#!/bin/sh\nprintf '%s\\n' '${head}' '${row}'\n`)
  chmodSync(command, 0o755)
  return { ...bare(directory), NVIDIA_SMI: command }
}

/** A port that is taken until the test ends. */
async function takenPort(t: TestContext): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  return (server.address() as { port: number }).port
}

test('without GPU and seed it says so in one line, why each source failed and what to do; exit 1', (t) => {
  const { status, stdout, stderr } = pertoken(['agent'], bare(temporaryDirectory(t)))
  assert.deepEqual([status, stdout], [1, ''])
  assert.match(
    stderr,
    /^pertoken agent failed: No GPU can be read: nvml: .+; nvidia-smi: .+; dcgm: .+; seed: .+GPU_SEED.*\n$/,
  )
  assert.equal(stderr.trim().split('\n').length, 1)
})

test('wrong words and settings: exit 2, each named, with what is allowed, never the token', (t) => {
  const env = { ...bare(temporaryDirectory(t)), GPU_SEED: SEED }
  for (const [words, more, expected] of [
    [['--to', 'ftp://box'], {}, /AGENT_TO is "ftp:\/\/box": expected https:/],
    [['--to', 'https://me:pw1@box/x'], {}, /AGENT_TO is "https:\/\/\*\*\*@box\/x".*token in API_TOKEN/],
    [['--model', '0=a,0=b'], {}, /GPU 0 twice/],
    [['--interval', '0'], {}, /AGENT_INTERVAL_SEC is "0": expected a number from 0.05 to 60 \(s\)/],
    [['--spool-mb', '0'], {}, /AGENT_SPOOL_MB/],
    [['--ca', '/none.pem'], {}, /AGENT_CA is "\/none.pem"/],
    [['--gpu-metrics-source', 'rocm'], {}, /expected one of auto, nvml, nvidia-smi, dcgm, seed/],
    [['--dcgm', 'ftp://me:pw1@box'], {}, /DCGM_URL is "\*\*\*": expected http\[s\]:\/\/host/],
    [['--token-file', '/none'], {}, /Token file "\/none" cannot be used/],
    [['http://box'], {}, /Unexpected word/],
    [[], { API_TOKEN: 'two pw1' }, /API_TOKEN holds spaces/],
    [[], { API_TOKEN_FILE: '/none' }, /API_TOKEN_FILE is "\/none"/],
  ] as const) {
    const { status, stderr } = pertoken(['agent', ...words], { ...env, ...more })
    assert.equal(status, 2, `${words.join(' ')}: ${stderr}`)
    assert.match(stderr, expected)
    assert.doesNotMatch(stderr, /pw1/)
  }
})

test('--once prints what it would send and sends nothing; auto ends in the seed only where one is named', (t) => {
  const directory = temporaryDirectory(t)
  const env = { ...bare(directory), GPU_SEED: SEED, HOSTNAME: 'box', KAFKA_BOOTSTRAP: 'localhost:1' }
  const json = pertoken(['agent', '--once', '--json', '--model', '0=a,2=c', '--price', '3'], env)
  assert.equal(json.status, 0, json.stderr)
  const events = JSON.parse(json.stdout) as Record<string, unknown>[]
  assert.deepEqual(
    events.map((event) => [event['gpu_index'], event['model_loaded'], event['price_per_hour_usd'], event['source']]),
    [
      [0, 'a', 3, 'seed'],
      [1, undefined, 3, 'seed'],
      [2, 'c', 3, 'seed'],
      [3, undefined, 3, 'seed'],
    ],
  )
  assert.ok(events.every((event) => event['host'] === 'box' && !Object.values(event).includes(null)))
  const text = pertoken(['agent', '--once'], withGpu(directory))
  assert.deepEqual(
    [text.status, text.stdout],
    [0, 'GPU 0: NVIDIA L4, 37 % busy, 1024 of 23034 MiB, 41.5 W (nvidia-smi)\n'],
  )
})

test('--dcgm takes the figures of an exporter, also where a driver could be called', async (t) => {
  const page = [
    'DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-1",modelName="NVIDIA L4",Hostname="n",namespace="serving",pod="m-0"} 37',
    'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="1",UUID="GPU-1"} 1500',
    'DCGM_FI_PROF_SM_ACTIVE{gpu="1",UUID="GPU-1"} 0.250000',
    'DCGM_FI_PROF_DRAM_ACTIVE{gpu="1",UUID="GPU-1"} 0.125000',
  ]
  // In a process of its own: this one waits for the agent.
  const code = `require('http').createServer((q, r) => r.end(${JSON.stringify(`${page.join('\n')}\n`)})).listen(0, '127.0.0.1', function () { console.log(this.address().port) })`
  const exporter = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => exporter.kill())
  const port = String((await once(exporter.stdout, 'data'))[0]).trim()
  const env = { ...withGpu(temporaryDirectory(t)), HOSTNAME: 'box' }
  const { status, stdout, stderr } = pertoken(['agent', '--once', '--json', '--dcgm', `http://127.0.0.1:${port}`], env)
  assert.equal(status, 0, stderr)
  assert.equal(stderr, 'DCGM\'s page is of host "n"; samples carry "box"\n')
  const [{ ts: _ts, event_id: _id, ...event }] = JSON.parse(stdout)
  assert.deepEqual(event, {
    host: 'box',
    gpu_index: 1,
    uuid: 'GPU-1',
    name: 'NVIDIA L4',
    utilization: 0.37,
    energy_j: 1.5,
    sm_active: 0.25,
    dram_active: 0.125,
    namespace: 'serving',
    pod: 'm-0',
    source: 'dcgm',
  })
})

test('a port that is taken, and a spool that cannot be used, are said with what to do; exit 1', async (t) => {
  const directory = temporaryDirectory(t)
  const env = withGpu(directory)
  const port = await takenPort(t)
  const beside = pertoken(['agent', '--port', String(port)], env)
  assert.equal(beside.status, 1)
  assert.match(beside.stderr, /Cannot listen on 127.0.0.1:\d+: something else does, an agent perhaps; set --port/)
  writeFileSync(join(directory, 'data', 'spool.sqlite'), 'this is no spool'.repeat(1000))
  const broken = pertoken(['agent', '--port', '0'], env)
  assert.equal(broken.status, 1)
  assert.match(
    broken.stderr,
    /spool.sqlite" is damaged, stop pertoken, save the file, and restore a backup or move it away/,
  )
})

test('doctor has a line for each GPU source; one is wrong only where the settings ask for it', (t) => {
  const directory = temporaryDirectory(t)
  const lines = (env: Env) => {
    const { stdout } = pertoken(['doctor'], { ...env, PORT: '1' })
    return Object.fromEntries(
      [...stdout.matchAll(/^(ok|WRONG|-) +(nvml|nvidia-smi|dcgm|seed) +(.+)$/gm)].map(([, state, name]) => [
        name,
        state,
      ]),
    )
  }
  assert.deepEqual(lines(bare(directory)), { nvml: '-', 'nvidia-smi': '-', dcgm: '-', seed: '-' })
  assert.equal(lines({ ...bare(directory), DCGM_URL: 'http://127.0.0.1:1' })['dcgm'], 'WRONG')
  assert.deepEqual(lines({ ...bare(directory), GPU_METRICS_SOURCE: 'nvml' }), {
    nvml: 'WRONG',
    'nvidia-smi': '-',
    dcgm: '-',
    seed: '-',
  })
  assert.deepEqual(lines({ ...withGpu(directory), GPU_SEED: SEED }), {
    nvml: '-',
    'nvidia-smi': 'ok',
    dcgm: '-',
    seed: 'ok',
  })
  assert.deepEqual(lines({ ...withGpu(directory), GPU_SEED: '/none' }), {
    nvml: '-',
    'nvidia-smi': 'ok',
    dcgm: '-',
    seed: 'WRONG',
  })
  const json = pertoken(['doctor', '--json'], { ...bare(directory), PORT: '1' })
  const nvml = (JSON.parse(json.stdout) as { part: string; ok: boolean | null }[]).find(({ part }) => part === 'nvml')
  assert.equal(nvml?.ok, null)
})

test('processor --publish-gpu publishes its own host’s measured samples, each one document', async (t) => {
  const directory = temporaryDirectory(t)
  const env = { ...withGpu(directory), HOSTNAME: 'vm3', GPU_SEED: SEED, AGENT_INTERVAL_SEC: '0.1' }
  const words = ['processor', '--publish-gpu', '--host', '127.0.0.1']
  const service = await (await startService(t, words, { ...env, AGENT_MODEL: 'llama' })).ready()
  await until('samples are stored', async () => (await storedSamples(service)).length >= 5)
  const stored = await storedSamples(service)
  assert.ok(
    stored.every((one) => one['source'] === 'nvidia-smi' && one['host'] === 'vm3' && one['model_loaded'] === 'llama'),
  )
  const ids = stored.map((one) => Number(String(one['event_id']).split('-').at(-1))).sort((a, b) => a - b)
  assert.deepEqual(
    ids,
    ids.map((_, n) => n),
  )
  assert.equal(await service.stop(), 0, service.output)
})

test('processor --publish-gpu never publishes the seed’s figures, and a host without GPU does not stop it', async (t) => {
  const env = { ...bare(temporaryDirectory(t)), GPU_SEED: SEED }
  const refused = pertoken(['processor', '--publish-gpu'], { ...env, GPU_METRICS_SOURCE: 'seed' })
  assert.equal(refused.status, 2)
  assert.match(refused.stderr, /never publishes the seed/)
  const service = await (await startService(t, ['processor', '--publish-gpu', '--host', '127.0.0.1'], env)).ready()
  await until('it says why there are none', async () => /No GPU can be read: nvml: .*nvidia-smi: /.test(service.output))
  assert.doesNotMatch(service.output, /seed:/)
  assert.deepEqual(await storedSamples(service), [])
  assert.equal((await service.health()).status, 'ok')
  assert.equal(await service.stop(), 0, service.output)
})
