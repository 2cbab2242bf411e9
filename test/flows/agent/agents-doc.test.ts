// docs/agents.md, run as it stands there: the five minutes from a token to a report, and the two producers that need no
// agent, with public clients only. Addresses and tokens are those of the test; the GPU is a script named nvidia-smi.

import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { freePort } from '../../servers/managed-server.ts'
import { kafkaForTests, uniqueName } from '../../servers/servers-for-tests.ts'
import { type Env, pertoken, type Service, startService, temporaryDirectory, until } from '../harness.ts'
import { metricsOf, startAt, storedSamples } from './agent-process.ts'

const ROOT = new URL('../../..', import.meta.url).pathname
const doc = readFileSync(join(ROOT, 'docs/agents.md'), 'utf8')
const blocks = [...doc.matchAll(/^```(\w+)\n([\s\S]*?)^```/gm)].map(([, language, text]) => ({ language, text: text! }))
const shell = blocks.find(({ text }) => text.startsWith('#!/bin/sh'))!.text
const python = blocks.find(({ language }) => language === 'python')!.text
const ADDRESS = 'https://pertoken.example.com'

/**
 * A folder with an nvidia-smi of two GPUs, of which the second tells neither utilisation nor uuid; it knows the queries
 * of the page. It writes an advisory before its table and exits with 14, as with a corrupted infoROM; with `failsFirst`
 * its first run has no rows at all.
 */
function fakeGpus(t: TestContext, { failsFirst = false } = {}): string {
  const directory = join(temporaryDirectory(t), 'bin')
  mkdirSync(directory)
  const path = join(directory, 'nvidia-smi')
  const values = (row: Record<string, string>) =>
    `case "$field" in ${Object.entries(row)
      .map(([name, value]) => `${name}) v='${value}';;`)
      .join(' ')} *) v='[N/A]';; esac`
  const rows = [
    {
      index: '0',
      uuid: 'GPU-a',
      name: 'NVIDIA L4',
      'utilization.gpu': '37',
      'memory.used': '1024',
      'memory.total': '23034',
      'power.draw': '41.50',
    },
    {
      index: '1',
      name: 'NVIDIA L4',
      'memory.used': '0',
      'memory.total': '23034',
      'power.draw': '[N/A]',
    },
  ]
  const script = [
    '#!/bin/sh',
    failsFirst
      ? '[ -e "$0.ran" ] || { touch "$0.ran"; echo "Failed to initialize NVML: Unknown Error"; exit 255; }'
      : '',
    'echo "WARNING: infoROM is corrupted at gpu 0000:B3:00.0"',
    'fields=$(echo "$1" | sed "s/--query-gpu=//" | tr "," " ")',
    // With units and a header where the reader did not ask them away, as the real one does.
    'case "$2" in *noheader*) ;; *) echo "$fields" | sed "s/ /, /g";; esac',
    ...rows.map(
      (row) => `line=; for field in $fields; do ${values(row)}; line="$line\${line:+, }$v"; done; echo "$line"`,
    ),
    'exit 14',
  ]
  writeFileSync(path, `${script.join('\n')}\n`)
  chmodSync(path, 0o755)
  return directory
}

/** The two GPUs as they must be stored. */
function checkSamples(samples: readonly Record<string, unknown>[]): void {
  const figures = (gpu: number) => {
    const { utilization, mem_used_mb, mem_total_mb, power_w, uuid, name, source } = samples.find(
      (one) => one['gpu_index'] === gpu,
    )!
    return { utilization, mem_used_mb, mem_total_mb, power_w, uuid, name, source }
  }
  const common = { mem_total_mb: 23_034, name: 'NVIDIA L4', source: 'nvidia-smi' }
  assert.deepEqual(figures(0), { ...common, utilization: 0.37, mem_used_mb: 1024, power_w: 41.5, uuid: 'GPU-a' })
  assert.deepEqual(figures(1), {
    ...common,
    utilization: undefined,
    mem_used_mb: 0,
    power_w: undefined,
    uuid: undefined,
  })
  assert.equal(new Set(samples.map((one) => one['event_id'])).size, samples.length)
}

/** Runs a producer until it is killed at the end of the test. */
function produce(t: TestContext, command: string, file: string, env: NodeJS.ProcessEnv): ChildProcess {
  const child = spawn(command, [file], { env, stdio: ['ignore', 'inherit', 'inherit'], detached: true })
  // Its own children too: it may be asleep.
  t.after(() => process.kill(-child.pid!, 'SIGKILL'))
  return child
}

test('the five minutes: tokens, a look, the agent, a report', async (t) => {
  const directory = temporaryDirectory(t)
  const lines = blocks
    .filter(({ language }) => language === 'sh')
    .flatMap(({ text }) => text.split('\n'))
    .map((line) => line.replace(/\s+#.*/, '').trim())
    .filter((line) => line.startsWith('pertoken '))
    .map((line) => line.replace('pertoken ', '').split(' '))
  const [addBox, addMe, up, once, agentWords, report, ...rest] = lines
  assert.deepEqual([up?.[0], once?.join(' '), report?.[0], rest], ['up', 'agent --once', 'report', []])
  const tokens = { API_TOKENS_FILE: join(directory, 'api-tokens') }
  const [boxToken, myToken] = [addBox!, addMe!].map((words) => {
    const { status, stdout, stderr } = pertoken(words, tokens, directory)
    assert.equal(status, 0, stderr)
    return stdout.trim()
  })
  const server = await (await startService(t, up!, { ...tokens, DATA_DIR: join(directory, 'server') })).ready()
  const gpu: Env = {
    NVML_LIBRARY: '/none',
    NVIDIA_SMI: join(fakeGpus(t), 'nvidia-smi'),
    DATA_DIR: join(directory, 'box'),
  }
  const here = (words: readonly string[]) =>
    words.map((word) => (word === ADDRESS ? `http://127.0.0.1:${server.port}` : word))
  const shown = pertoken(once!, gpu, directory)
  assert.equal(shown.status, 0, shown.stderr)
  assert.match(shown.stdout, /^GPU 0: NVIDIA L4, 37 % busy/)
  const agent = startAt(t, await freePort(), here(agentWords!), { ...gpu, API_TOKEN: boxToken! })
  await until('samples are sent', async () => (await metricsOf(agent))['samples_sent_total']! >= 4)
  await until('they are stored', async () => (await storedSamples(server, myToken)).length >= 4)
  const samples = await storedSamples(server, myToken)
  checkSamples(samples)
  assert.ok(samples.every((one) => one['price_per_hour_usd'] === 2.49 && one['model_loaded'] === 'llama-3.3-70b'))
  const looked = pertoken(here(report!), { API_TOKEN: myToken! }, directory)
  assert.equal(looked.status, 0, looked.stderr)
  assert.equal(await agent.stop(), 0, agent.output)
  assert.equal(await server.stop(), 0)
})

for (const [name, command, text] of [
  ['shell', 'sh', shell],
  ['Python', 'python3', python],
] as const) {
  test(`the ${name} producer has at most 40 lines, and each sample of it is one document, after an outage too`, async (t) => {
    assert.ok(text.trimEnd().split('\n').length <= 40, `${text.split('\n').length} lines`)
    const directory = temporaryDirectory(t)
    const tokens = { API_TOKENS_FILE: join(directory, 'api-tokens') }
    const add = (scope: string) => pertoken(['tokens', 'add', '--name', scope, '--scope', scope], tokens).stdout.trim()
    const [ingest, read] = [add('ingest'), add('read')]
    const port = await freePort()
    const serve = () => startAt(t, port, ['up'], { ...tokens, DATA_DIR: join(directory, 'server') }).ready()
    let server: Service = await serve()
    const file = join(directory, 'producer')
    writeFileSync(file, text)
    const path = `${fakeGpus(t, { failsFirst: true })}:${process.env['PATH']}`
    produce(t, command, file, {
      PATH: path,
      PERTOKEN_URL: `http://127.0.0.1:${port}`,
      API_TOKEN: ingest,
      HOSTNAME: 'box',
    })
    await until('samples are stored', async () => (await storedSamples(server, read)).length >= 4)
    await server.stop('SIGKILL')
    server = await serve()
    const before = (await storedSamples(server, read)).length
    await until('it goes on by itself', async () => (await storedSamples(server, read)).length >= before + 2)
    const samples = await storedSamples(server, read)
    checkSamples(samples)
    const beats = [0, 1].map((gpu) => samples.filter((one) => one['gpu_index'] === gpu).length)
    assert.ok(Math.abs(beats[0]! - beats[1]!) <= 1, `${beats}`)
    assert.equal(await server.stop(), 0)
  })
}

test('the shell producer sends to Kafka by kcat, where that is installed', async (t) => {
  try {
    execFileSync('kcat', ['-V'], { stdio: 'ignore' })
  } catch {
    return t.diagnostic('kcat is not installed: sending by curl is tested above')
  }
  const kafka = await kafkaForTests()
  if (kafka.skip !== false) return t.skip(kafka.skip)
  const directory = temporaryDirectory(t)
  const topic = uniqueName('gpu')
  const names = { TOPIC_METRIC: topic, TOPIC_TOKEN: uniqueName('token'), TOPIC_DEAD: uniqueName('dead') }
  const env = { ...names, KAFKA_BOOTSTRAP: kafka.bootstrap, KAFKA_GROUP: uniqueName('g'), DATA_DIR: directory }
  const processor = await (await startService(t, ['processor', '--host', '127.0.0.1'], env)).ready()
  const file = join(directory, 'producer')
  writeFileSync(file, shell.replace('gpu.metrics.v1', topic))
  const path = `${fakeGpus(t)}:${process.env['PATH']}`
  produce(t, 'sh', file, { ...process.env, PATH: path, KAFKA_BOOTSTRAP: kafka.bootstrap, HOSTNAME: 'box' })
  await until('samples are stored', async () => (await storedSamples(processor)).length >= 4)
  checkSamples(await storedSamples(processor))
  assert.equal(await processor.stop(), 0)
})

test('the settings of the service’s example are settings, and its unit passes systemd’s check where that is installed', (t) => {
  const example = blocks.find(({ language }) => language === 'ini')!.text
  const env = Object.fromEntries(
    example
      .trim()
      .split('\n')
      .map((line) => line.split(/=(.*)/).slice(0, 2)),
  ) as Env
  const { status, stdout } = pertoken(['config', '--json'], env)
  assert.equal(status, 0)
  const rows = JSON.parse(stdout) as { name: string; source: string }[]
  for (const name of Object.keys(env)) assert.equal(rows.find((row) => row.name === name)?.source, 'environment', name)
  const unit = join(ROOT, 'deploy/systemd/pertoken-agent.service')
  assert.match(readFileSync(unit, 'utf8'), /ExecStart=\S+ pertoken agent\n[\s\S]*DynamicUser=yes/)
  try {
    execFileSync('systemd-analyze', ['--version'], { stdio: 'ignore' })
  } catch {
    return t.diagnostic('systemd-analyze is not installed')
  }
  execFileSync('systemd-analyze', ['verify', unit], { stdio: 'pipe' })
})
