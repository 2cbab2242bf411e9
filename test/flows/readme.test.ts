// The README's commands, run as they stand there: the demo and its three addresses, and the four commands for an own
// Kafka and MongoDB. Only the addresses are replaced by those of the test's servers.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { kafkaForTests, mongoForTests, uniqueName, withDatabase } from '../servers/servers-for-tests.ts'
import { pertoken, startService, temporaryDirectory, until } from './harness.ts'

const ROOT = new URL('../..', import.meta.url).pathname
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
const commands = [...readme.matchAll(/^```sh\n([\s\S]*?)^```/gm)]
  .flatMap((match) => match[1]!.split('\n'))
  .map((line) => line.replace(/\s+#.*/, '').trim())
  .filter((line) => line !== '')

test('the README’s commands for the demo work', async (t) => {
  assert.ok(commands.includes('make run') && commands.includes('make test'))
  assert.match(readFileSync(join(ROOT, 'Makefile'), 'utf8'), /^run:[\s\S]*?up --demo --embedded/m)
  const env = { DATA_DIR: temporaryDirectory(t), KAFKA_BOOTSTRAP: 'localhost:1', MONGO_URL: 'mongodb://localhost:1' }
  const service = await (await startService(t, ['up', '--demo', '--embedded'], env)).ready()
  assert.match(service.output, /Ignoring KAFKA_BOOTSTRAP and MONGO_URL/)
  const curls = commands.filter((line) => line.startsWith('curl '))
  assert.equal(curls.length, 3)
  for (const line of curls) {
    const path = line.replace(/^curl localhost:8080/, '')
    await until(`${path} answers`, async () => (await service.get(path)).status === 200)
  }
  assert.equal(await service.stop(), 0)
})

test('the README’s commands for an own Kafka and MongoDB work', async (t) => {
  const kafka = await kafkaForTests()
  const mongo = await mongoForTests()
  if (kafka.skip !== false || mongo.skip !== false) return t.skip(String(kafka.skip || mongo.skip))
  const names = {
    TOPIC_METRIC: uniqueName('gpu'),
    TOPIC_TOKEN: uniqueName('token'),
    TOPIC_DEAD: uniqueName('dead'),
    KAFKA_GROUP: uniqueName('g'),
  }
  const env = { KAFKA_BOOTSTRAP: kafka.bootstrap, MONGO_URL: withDatabase(mongo.url, uniqueName('readme')), ...names }
  const lines = commands
    .filter((line) => line.includes('npx pertoken '))
    .map((line) => line.slice(line.indexOf('npx pertoken ') + 13).split(' '))
  assert.deepEqual(
    lines.map(([name]) => name),
    ['doctor', 'topics', 'processor', 'produce', 'report', 'verify'],
  )
  const before = pertoken(lines[0]!, { ...env, PORT: '1' })
  assert.equal(before.status, 1, 'there are no topics yet')
  assert.match(before.stdout, /ok +log[\s\S]*WRONG topics[\s\S]*ok +store[\s\S]*WRONG http/)
  const topics = pertoken(lines[1]!, env)
  assert.equal(topics.status, 0, topics.stderr)
  const service = await (await startService(t, [...lines[2]!, '--host', '127.0.0.1'], env)).ready()
  const doctor = pertoken(lines[0]!, { ...env, PORT: String(service.port) })
  assert.equal(doctor.status, 0, doctor.stdout)
  const produced = pertoken([...lines[3]!, '--interval', '0'], {
    ...env,
    GPU_SEED: join(ROOT, 'examples/gpu_seed.json'),
  })
  assert.equal(produced.status, 0, produced.stderr)
  const health = await service.settled(40)
  assert.equal(health.outcomes.stored, 40)
  const report = pertoken(lines[4]!, env)
  assert.equal(report.status, 0, report.stderr)
  assert.match(report.stdout, /\$\/1M/)
  // The keeper has not come to these events yet: their cells are pending, which is no difference.
  const verified = pertoken(lines[5]!, env)
  assert.equal(verified.status, 0, verified.stdout + verified.stderr)
  assert.equal(await service.stop(), 0)
})
