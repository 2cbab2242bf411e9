// Differences between looks: against a simulated engine that knows what it made, over any order of work, looks,
// restarts, lost series and restarts of the reader; and case by case what a page may do between two looks.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { type EngineState, engineDeltas } from '../../../src/agent/engine/engine-deltas.ts'
import { type EnginePage, readEnginePage } from '../../../src/agent/engine/engine-page.ts'
import { usageByModel } from '../../../src/agent/engine/engine-usage.ts'

const T0 = 1_700_000_000_000

function pageOf(counts: Record<string, number | string>, startMs: number | null = null): EnginePage {
  const lines = Object.entries(counts).map(([name, value]) => `vllm:${name} ${value}\n`)
  if (startMs !== null) lines.push(`process_start_time_seconds ${startMs / 1000}\n`)
  return readEnginePage(`# TYPE vllm:prompt_tokens counter\n${lines.join('')}`)!
}

const prompt = (model: string, more = '') => `prompt_tokens_total{model_name="${model}"${more}}`
const output = (model: string, more = '') => `generation_tokens_total{model_name="${model}"${more}}`

/** Prompt and completion tokens of each look, in order; the state goes through JSON between two looks. */
function looks(...pages: EnginePage[]) {
  let state: EngineState | null = null
  return pages.map((page, i) => {
    const result = engineDeltas(state, page, { atMs: T0 + i * 5000 })
    state = JSON.parse(JSON.stringify(result.state)) as EngineState
    const usages = usageByModel(result.series)
    const total = (meaning: 'prompt' | 'completion') => usages.reduce((sum, usage) => sum + (usage[meaning] ?? 0), 0)
    return { ...result, prompt: total('prompt'), completion: total('completion') }
  })
}

interface Engine {
  startMs: number
  counts: Record<string, number>
}

const KEYS = [
  prompt('quail', ',engine="0"'),
  prompt('quail', ',engine="1"'),
  prompt('heron', ',engine="0"'),
  output('quail', ',engine="0"'),
  output('heron', ',engine="0"'),
]

const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('work' as const), key: fc.nat(KEYS.length - 1), by: fc.nat(50) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('look' as const),
      lost: fc.array(fc.nat(KEYS.length - 1), { maxLength: 2 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
)

interface Kind {
  hasStart: boolean
  /** What a look that does not see a series finds instead: no number, or nothing. */
  lostAs: 'NaN' | 'absent'
}

/** Runs the steps; what was made, what deltas sum to, and what was made between a last look and a restart. */
function run(steps: readonly (typeof step extends fc.Arbitrary<infer S> ? S : never)[], { hasStart, lostAs }: Kind) {
  let nowMs = T0
  let engine: Engine = { startMs: nowMs, counts: {} }
  let state: EngineState | null = null
  const result = { made: 0, counted: 0, lost: 0, wasUnseen: false }
  /** Counts at the last look that saw each series, of this process or one before. */
  let seen: Record<string, number> = {}
  let isFresh = false
  const look = (lost: readonly number[]) => {
    nowMs += 5000
    const shown = Object.entries(engine.counts).filter(([key]) => !lost.includes(KEYS.indexOf(key)))
    if (isFresh && shown.length > 0) {
      // Without a start time a restart shows only where a counter fell.
      if (!shown.some(([key, value]) => value < (seen[key] ?? 0))) result.wasUnseen = true
      seen = {}
      isFresh = false
    }
    // Which of two looks a restart lies between is then known for some series only.
    if (shown.length < Object.keys(engine.counts).length) result.wasUnseen = true
    for (const [key, value] of shown) seen[key] = value
    const hidden = Object.keys(engine.counts).filter((key) => lost.includes(KEYS.indexOf(key)))
    const unusable = lostAs === 'NaN' ? Object.fromEntries(hidden.map((key) => [key, 'NaN'])) : {}
    const page = pageOf({ ...Object.fromEntries(shown), ...unusable }, hasStart ? engine.startMs : null)
    const { state: after, series } = engineDeltas(state, page, { atMs: nowMs, sinceMs: T0, absentMs: T0 })
    state = JSON.parse(JSON.stringify(after)) as EngineState
    for (const { value } of series) {
      assert.ok(value >= 0)
      result.counted += value
    }
  }
  look([])
  for (const one of steps) {
    if (one.do === 'work') {
      engine.counts[KEYS[one.key]!] = (engine.counts[KEYS[one.key]!] ?? 0) + one.by
      result.made += one.by
    } else if (one.do === 'look') look(one.lost)
    else {
      const atLook: Record<string, number> = isFresh ? {} : seen
      for (const [key, value] of Object.entries(engine.counts)) result.lost += value - (atLook[key] ?? 0)
      nowMs += 10_000
      if (isFresh) result.wasUnseen = true
      isFresh = true
      engine = { startMs: nowMs, counts: {} }
      if (hasStart) seen = {}
    }
  }
  look([])
  return result
}

test('with a start time: what was made, less what was made after the last look before each restart', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { made, counted, lost } = run(steps, { hasStart: true, lostAs: 'NaN' })
      assert.equal(counted, made - lost)
    }),
    { numRuns: 1000 },
  )
})

test('without a start time no token is counted twice, and none is lost where the restart shows', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { made, counted, lost, wasUnseen } = run(steps, { hasStart: false, lostAs: 'NaN' })
      assert.ok(counted <= made - (wasUnseen ? 0 : lost), `${counted} of ${made}`)
      if (!wasUnseen) assert.equal(counted, made - lost)
    }),
    { numRuns: 1000 },
  )
})

test('series that come and go, with or without a start time, make no token count twice', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, hasStart) => {
      const { made, counted } = run(steps, { hasStart, lostAs: 'absent' })
      assert.ok(counted <= made, `${counted} of ${made}`)
    }),
    { numRuns: 1000 },
  )
})

test('a first look is a baseline, unless the process has started since engines are watched', () => {
  const page = pageOf({ [prompt('quail')]: 70 }, T0)
  const first = (time: object) => engineDeltas(null, page, { atMs: T0 + 5000, ...time })
  assert.deepEqual(first({}).series, [])
  assert.deepEqual(first({ sinceMs: T0 + 1 }).series, [])
  const started = first({ sinceMs: T0 - 1 })
  assert.deepEqual([started.series.map(({ value }) => value), started.fromMs], [[70], T0])
})

test('without start time a first look counts where nothing answered at its address before', () => {
  const first = engineDeltas(null, pageOf({ [prompt('quail')]: 70 }), {
    atMs: T0 + 5000,
    sinceMs: T0,
    absentMs: T0 + 9,
  })
  assert.deepEqual([first.series.map(({ value }) => value), first.fromMs], [[70], T0 + 9])
  assert.deepEqual(engineDeltas(null, pageOf({ [prompt('quail')]: 70 }), { atMs: T0, sinceMs: 0 }).series, [])
})

test('a restart counts from the later of start and last look', () => {
  const [, second] = looks(pageOf({ [prompt('q')]: 70 }, T0 - 9000), pageOf({ [prompt('q')]: 75 }, T0 + 2000))
  assert.deepEqual([second!.prompt, second!.fromMs, second!.hasRestarted], [75, T0 + 2000, true])
  const [, fallen] = looks(pageOf({ [prompt('q')]: 70 }), pageOf({ [prompt('q')]: 5 }))
  assert.deepEqual([fallen!.prompt, fallen!.fromMs, fallen!.hasRestarted], [5, T0, true])
})

test('one fallen counter is a restart for those that the same look saw, though they have grown past it', () => {
  const [, second] = looks(
    pageOf({ [prompt('q')]: 70, [output('q')]: 9 }),
    pageOf({ [prompt('q')]: 7, [output('q')]: 12 }),
  )
  assert.deepEqual([second!.prompt, second!.completion], [7, 12])
})

test('a counter that falls while its process goes on is named and counted from there', () => {
  const [, second, third] = looks(
    pageOf({ [prompt('q')]: 70, [output('q')]: 9 }, T0),
    pageOf({ [prompt('q')]: 60, [output('q')]: 12 }, T0),
    pageOf({ [prompt('q')]: 61, [output('q')]: 12 }, T0),
  )
  assert.deepEqual([second!.prompt, second!.completion, third!.prompt], [0, 3, 1])
  assert.match(second!.notes[0]!, /fell from 70 to 60 though its process did not start again/)
})

test('a start that moves by less than an engine needs to start is the same process', () => {
  const [, second] = looks(pageOf({ [prompt('q')]: 70 }, T0), pageOf({ [prompt('q')]: 75 }, T0 + 1000))
  assert.equal(second!.prompt, 5)
})

test('an address behind which several old processes answer counts nothing and is named', () => {
  const [, second, third] = looks(
    pageOf({ [prompt('q')]: 70 }, T0 - 900_000),
    pageOf({ [prompt('q')]: 5000 }, T0 - 500_000),
    pageOf({ [prompt('q')]: 71 }, T0 - 900_000),
  )
  assert.deepEqual([second!.prompt, third!.prompt], [0, 0])
  assert.match(second!.notes[0]!, /Another process answers/)
})

test('a label that appears, and a family that takes the place of another, are the same count', () => {
  const [, second, third] = looks(
    pageOf({ [prompt('q')]: 70, [output('q')]: 9 }),
    pageOf({ [prompt('q', ',engine="0"')]: 50, [prompt('q', ',engine="1"')]: 25, [output('q')]: 9 }),
    pageOf({ [prompt('q', ',engine="0"')]: 51, [prompt('q', ',engine="1"')]: 25, [output('q')]: 9 }),
  )
  assert.deepEqual([second!.prompt, third!.prompt], [5, 1])
  const cached = (page: Record<string, number>) => pageOf({ [prompt('q')]: 70, ...page })
  const flip = looks(
    cached({ 'prompt_tokens_by_source_total{model_name="q",source="local_cache_hit"}': 30 }),
    cached({ 'prompt_tokens_cached_total{model_name="q"}': 32 }),
  )[1]!
  assert.equal(flip.series.find(({ meaning }) => meaning === 'cached')?.value, 2)
})

test('a series that is new on a whole page counts from zero; one that was away goes on from where it was', () => {
  const [, second, third] = looks(
    pageOf({ [prompt('q')]: 70 }),
    pageOf({ [output('q')]: 4, [prompt('r')]: 8 }),
    pageOf({ [prompt('q')]: 73, [output('q')]: 4, [prompt('r')]: 8 }),
  )
  assert.deepEqual([second!.prompt, second!.completion, third!.prompt], [8, 4, 3])
})

test('values that are no number are skipped, and the next one is the difference to the last good one', () => {
  const [, second, third] = looks(
    pageOf({ [prompt('q')]: 70 }),
    pageOf({ [prompt('q')]: 'NaN' }),
    pageOf({ [prompt('q')]: 72 }),
  )
  assert.deepEqual([second!.prompt, third!.prompt, third!.hasRestarted], [0, 2, false])
  assert.match(second!.notes[0]!, /has the value NaN/)
})

test('a value that falls by less than the six digits that are printed is no restart', () => {
  const [, second, third] = looks(
    pageOf({ [prompt('q')]: '1.00282e+06' }),
    pageOf({ [prompt('q')]: '1.00281e+06' }),
    pageOf({ [prompt('q')]: '1.00284e+06' }),
  )
  assert.deepEqual([second!.prompt, second!.hasRestarted, third!.prompt], [0, false, 20])
})

test('another engine at the address is a baseline', () => {
  const llama = readEnginePage('llamacpp:prompt_tokens_total 40\n')!
  const [, second] = looks(pageOf({ [prompt('q')]: 70 }), llama)
  assert.deepEqual([second!.prompt, second!.hasRestarted], [0, true])
})

test('a page of too many series is bounded and named', () => {
  const many = Object.fromEntries(Array.from({ length: 2500 }, (_, i) => [prompt(`m${i}`), 1]))
  const [first] = looks(pageOf(many))
  assert.equal(Object.keys(first!.state.series).length, 2000)
  assert.match(first!.notes[0]!, /has 2500 series of tokens: the first 2000 are counted/)
  let state: EngineState | null = null
  for (let i = 0; i < 5; i += 1) {
    const names = Array.from({ length: 900 }, (_, k) => [prompt(`m${i}-${k}`), 1])
    state = engineDeltas(state, pageOf(Object.fromEntries(names)), { atMs: T0 + i }).state
    assert.ok(Object.keys(state.series).length <= 2000)
  }
})

const CAPTURES = '../shared/captures/lab'
const skip = existsSync(CAPTURES) ? false : 'no captures lie beside the repository'
const captured = (file: string) => readEnginePage(readFileSync(`${CAPTURES}/${file}`, 'utf8'))!

test('captured pages in the order in which they were made give what their index states', { skip }, () => {
  const counted = (...files: string[]) => {
    const all = looks(...files.map(captured))
    return all.slice(1).map(({ prompt: p, completion: c }) => [p, c])
  }
  const llama = (name: string) => `llamacpp-b11434/${name}.prom`
  assert.deepEqual(
    counted(llama('00-fresh'), llama('01-after'), llama('02-restarted'), llama('03-after-restart-one')),
    [
      [855, 157],
      [0, 0],
      [34, 12],
    ],
  )
  assert.deepEqual(counted(llama('01-after'), llama('03-after-restart-one')), [[34, 12]])
  assert.deepEqual(counted('vllm-0.32.0-main/00-fresh.prom', 'vllm-0.32.0-main/01-after.prom'), [[568, 179]])
  const servers = 'vllm-0.32.0-two-api-servers'
  assert.deepEqual(counted(`${servers}/00-fresh.prom`, `${servers}/01-after.prom`), [[954, 166]])
  assert.deepEqual(counted('vllm-0.32.0-main/01-after.prom', `${servers}/00-fresh.prom`), [[0, 0]])
})

test('of more series than are followed none is counted twice, in whatever order a page has them', () => {
  const all = Array.from({ length: 2500 }, (_, i) => [prompt(`m${i}`), 1000] as const)
  const rotated = Array.from({ length: 6 }, (_, i) =>
    pageOf(Object.fromEntries([...all.slice(i * 400), ...all.slice(0, i * 400)])),
  )
  assert.deepEqual(
    looks(...rotated).map((look) => look.prompt),
    [0, 0, 0, 0, 0, 0],
  )
  const halves = [all.slice(0, 1500), all.slice(1500), all.slice(0, 1500), all.slice(1500)]
  const coming = looks(...halves.map((half) => pageOf(Object.fromEntries(half))))
  assert.equal(coming[2]!.prompt, 0)
  assert.equal(coming[3]!.prompt, 0)
})
