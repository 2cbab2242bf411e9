import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { TouchedCells } from '../../../src/domain/ledger/buckets.ts'
import type { Position } from '../../../src/log/event-log.ts'
import type { Step } from '../../../src/processor/ingest/step.ts'
import { StepWriter, type StepWriters } from '../../../src/processor/ingest/step-writer.ts'

function makeStep(offset: number, partition = 0): Step {
  const cells = new TouchedCells()
  cells.touch(`h${offset}`, offset * 60_000)
  return {
    samples: [],
    tokens: [],
    sampleOrigins: [],
    tokenOrigins: [],
    rejected: [],
    cells,
    positions: [{ topic: 't', topicId: 'A', partition, offset }],
    records: 1,
    newestMs: null,
    bytes: 1,
    done: false,
  }
}

/** Writers whose documents finish when the test says so, and that record what they were told. */
function makeWriters() {
  const waiting = new Map<Step, () => void>()
  const told = { documents: [] as number[], marks: [] as string[], positions: [] as Position[][], commits: 0 }
  const offsetOf = (step: Step) => step.positions[0]!.offset
  const writers: StepWriters = {
    documents: async (step) => {
      await new Promise<void>((resolve) => waiting.set(step, resolve))
      told.documents.push(offsetOf(step))
    },
    deadLetters: async () => {},
    marks: async (cells) => void told.marks.push(...cells.dirtyMinutes().flatMap(({ hosts }) => hosts.map(String))),
    positions: async (positions) => void told.positions.push([...positions]),
    commit: async () => void told.commits++,
  }
  return { writers, told, finish: (step: Step) => waiting.get(step)?.(), isWriting: (step: Step) => waiting.has(step) }
}

const settle = () => new Promise((resolve) => setImmediate(resolve))

test('positions advance only when all before them is written and marked, whatever order writes finish in', async () => {
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray([0, 1, 2, 3, 4, 5], { minLength: 6 }), async (order) => {
      const { writers, told, finish } = makeWriters()
      const inFlight = new StepWriter(writers, { maxWrites: 10, maxOpen: 10, finishIntervalMs: 0 })
      const steps = [0, 1, 2, 3, 4, 5].map((n) => makeStep(n + 1))
      for (const step of steps) await inFlight.add(step)
      for (const n of order) {
        finish(steps[n]!)
        await settle()
        await settle()
        const reached = Math.max(0, ...told.positions.flat().map(({ offset }) => offset))
        for (let offset = 1; offset <= reached; offset++) {
          assert.ok(told.documents.includes(offset), `position ${reached}, but ${offset} is not written`)
          assert.ok(told.marks.includes(`h${offset}`), `position ${reached}, but ${offset} is not marked`)
        }
      }
      await inFlight.idle()
      assert.equal(Math.max(...told.positions.flat().map(({ offset }) => offset)), 6)
      assert.equal(told.marks.length, 6)
      assert.equal(inFlight.openSteps, 0)
    }),
    { numRuns: 60 },
  )
})

test('add waits while as many writes are under way as may be: the back-pressure', async () => {
  const { writers, finish } = makeWriters()
  const inFlight = new StepWriter(writers, { maxWrites: 2, maxOpen: 10, finishIntervalMs: 0 })
  const steps = [makeStep(1), makeStep(2)]
  await inFlight.add(steps[0]!)
  let added = false
  const second = inFlight.add(steps[1]!).then(() => {
    added = true
  })
  await settle()
  assert.equal(added, false)
  finish(steps[0]!)
  await second
  finish(steps[1]!)
  await inFlight.idle()
})

test('steps that are ready are finished together: one mark write, one position per partition, the furthest', async () => {
  const { writers, told, finish } = makeWriters()
  const inFlight = new StepWriter(writers, { maxWrites: 10, maxOpen: 10, finishIntervalMs: 0 })
  const steps = [makeStep(1), makeStep(2), makeStep(7, 1)]
  for (const step of steps) await inFlight.add(step)
  finish(steps[1]!)
  finish(steps[2]!)
  await settle()
  assert.deepEqual(told.positions, [])
  finish(steps[0]!)
  await inFlight.idle()
  assert.deepEqual(told.positions, [[makeStep(2).positions[0]!, makeStep(7, 1).positions[0]!]])
  assert.equal(told.commits, 1)
})

test('a writer that gives up makes add and idle fail, and no position is stored', async () => {
  const { writers, told } = makeWriters()
  const failing: StepWriters = { ...writers, documents: () => Promise.reject(new Error('gave up')) }
  const inFlight = new StepWriter(failing, { maxWrites: 2, maxOpen: 2, finishIntervalMs: 0 })
  await inFlight.add(makeStep(1)).catch(() => {})
  await assert.rejects(inFlight.idle(), /gave up/)
  assert.deepEqual(told.positions, [])
})
