// What is read of a page of metrics, what is left out and how that is reported, and what a page of usual size costs.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  type ExpositionSample,
  type ExpositionSummary,
  parseExposition,
} from '../../../src/agent/exposition/parse-exposition.ts'

function read(text: string, wanted: (name: string) => boolean = () => true) {
  const samples: ExpositionSample[] = []
  const summary: ExpositionSummary = parseExposition(text, wanted, (sample) => samples.push(sample))
  return { samples, ...summary }
}

/** The one sample of a line. */
function one(line: string) {
  const { samples, faults } = read(`${line}\n`)
  assert.deepEqual([samples.length, faults], [1, []], line)
  const { name, labels, value, timestampMs } = samples[0]!
  return { name, labels: Object.fromEntries(labels), value, timestampMs }
}

test('a page gives its samples in order, with the type of their family', () => {
  const { samples, series, types, isCut, malformed, faults } = read(
    [
      '# HELP vllm:prompt_tokens_total Number of prefill tokens processed.',
      '# TYPE vllm:prompt_tokens_total counter',
      'vllm:prompt_tokens_total{engine="0",model_name="acme/m-7b"} 126901.0',
      'vllm:prompt_tokens_total{engine="1",model_name="acme/m-7b"} 3.5e+06',
      '',
      '# TYPE it histogram',
      'it_bucket{le="+Inf"} 4',
      'it_sum 1103',
      '# TYPE http_requests counter',
      'http_requests_total 7',
      'no_type 1',
      '',
    ].join('\n'),
  )
  assert.deepEqual(
    samples.map(({ name, value, type }) => [name, value, type]),
    [
      ['vllm:prompt_tokens_total', 126_901, 'counter'],
      ['vllm:prompt_tokens_total', 3_500_000, 'counter'],
      ['it_bucket', 4, 'histogram'],
      ['it_sum', 1103, 'histogram'],
      ['http_requests_total', 7, 'counter'],
      ['no_type', 1, null],
    ],
  )
  assert.deepEqual(
    [...samples[1]!.labels],
    [
      ['engine', '1'],
      ['model_name', 'acme/m-7b'],
    ],
  )
  assert.deepEqual([series, isCut, malformed, faults], [6, false, 0, []])
  assert.equal(types.get('it'), 'histogram')
})

test('a name that ends in _total is of the type that is stated, not of the one that its end suggests', () => {
  const page = '# TYPE tokens_total histogram\ntokens_total_sum 3\n# TYPE n_max counter\nn_max 9\n'
  assert.deepEqual(
    read(page).samples.map(({ name, type }) => [name, type]),
    [
      ['tokens_total_sum', 'histogram'],
      ['n_max', 'counter'],
    ],
  )
})

test('every notation of one line is read', () => {
  const rows: [line: string, labels: Record<string, string>, value: number, timestampMs?: number | null][] = [
    ['a 1', {}, 1],
    ['a{} 1', {}, 1],
    ['  a\t 1  ', {}, 1],
    ['a { x = "1" , y="2" , } 1', { x: '1', y: '2' }, 1],
    ['a{x="1", y="2",z=""} 139', { x: '1', y: '2', z: '' }, 139],
    [String.raw`a{p="C:\\x\"q\"\nend"} 1`, { p: 'C:\\x"q"\nend' }, 1],
    [String.raw`a{p="\\n}"} 1`, { p: '\\n}' }, 1],
    ['a{x="# {b} 3"} 1', { x: '# {b} 3' }, 1],
    ['a{__proto__="x"} 1', JSON.parse('{"__proto__":"x"}'), 1],
    ['a{x="ö 漢"} 1', { x: 'ö 漢' }, 1],
    ['a{x="1"}2', { x: '1' }, 2],
    ['a 1.00018e+06', {}, 1_000_180],
    ['a -0.5', {}, -0.5],
    ['a +Inf', {}, Number.POSITIVE_INFINITY],
    ['a -Inf', {}, Number.NEGATIVE_INFINITY],
    ['a NaN', {}, Number.NaN],
    ['a 5 1774011384611', {}, 5, 1_774_011_384_611],
    ['a 5 1774011384.611', {}, 5, 1_774_011_384_611],
    ['a{x="1"} 5 # {trace_id="t"} 0.67 1774011384.6', { x: '1' }, 5],
    ['a{x="1"} 5 1774011384611 # {trace_id="t"} 0.67', { x: '1' }, 5, 1_774_011_384_611],
  ]
  for (const [line, labels, value, timestampMs = null] of rows)
    assert.deepEqual(one(line), { name: 'a', labels, value, timestampMs }, line)
})

test('lines may end in CR LF, and # EOF ends a page', () => {
  const { samples, types, faults } = read('# TYPE a gauge\r\na{x="1"} 1\r\na 2\r\n# EOF')
  assert.deepEqual(
    samples.map(({ value, type }) => [value, type]),
    [
      [1, 'gauge'],
      [2, 'gauge'],
    ],
  )
  assert.deepEqual([types.get('a'), faults], ['gauge', []])
  assert.equal(read('a 1\n# EOF\na 2\n').samples.length, 1)
  assert.equal(read('a 1\n# EOFX\na 2\n').samples.length, 2)
})

test('a page that was cut is reported, and its last line, which may be half a number, is not read', () => {
  const { samples, isCut, faults } = read('a 1\na 12')
  assert.deepEqual(
    samples.map(({ value }) => value),
    [1],
  )
  assert.deepEqual([isCut, faults], [true, ['The page ends within line 2, which was not read']])
  assert.equal(read('a 1\n# HEL').isCut, true)
  for (const whole of ['', 'a 1\n', 'a 1\n  ', 'a 1\n# EOF']) assert.equal(read(whole).isCut, false, whole)
})

test('what cannot be read is left out, counted and quoted; the lines around it are read', () => {
  const bad: [line: string, why: RegExp][] = [
    ['a', /^Line 2 has no space after its name: "a"$/],
    ['a ', /has no value that is a number/],
    ['a x', /has no value that is a number/],
    ['a 0x10', /has no value that is a number/],
    ['a 1_000', /has no value that is a number/],
    ['a 1 2 3', /has no value that is a number/],
    ['a 1 then', /has a time that is no number/],
    ['a{x="1} 1', /has labels that cannot be read/],
    ['a{x=1} 1', /has labels that cannot be read/],
    ['a{x="1"', /has labels that cannot be read/],
    ['a{x="1" y="2"} 1', /has labels that cannot be read/],
    ['a{x="1",x="2"} 1', /has labels that cannot be read/],
    ['{"a",x="1"} 1', /does not begin with the name of a metric/],
    ['<html>', /does not begin with the name of a metric/],
    ['1a 1', /does not begin with the name of a metric/],
    ['\u0000\u0001', /does not begin with the name of a metric/],
    [`a{x="${'y'.repeat(70_000)}"} 1`, /has over 65536 characters/],
  ]
  for (const [line, why] of bad) {
    const { samples, malformed, faults } = read(`a 1\n${line}\na 3\n`)
    assert.deepEqual(
      samples.map(({ value }) => value),
      [1, 3],
      line.slice(0, 80),
    )
    assert.equal(malformed, 1)
    assert.match(faults[0]!, why)
    assert.ok(faults[0]!.length < 200)
  }
})

test('a type that is stated twice is reported, and of a thousand faults ten are kept', () => {
  const { samples, faults } = read('# TYPE a counter\na 1\n# TYPE a gauge\na 2\n')
  assert.deepEqual(
    samples.map(({ type }) => type),
    ['counter', 'counter'],
  )
  assert.deepEqual(faults, ['Line 3: type of "a" is "gauge" after counter; counter is used'])
  const many = read('?\n'.repeat(1000))
  assert.deepEqual([many.malformed, many.faults.length], [1000, 10])
})

test('a page beyond a limit fails with the limit', () => {
  assert.throws(() => read('a 1\n'.repeat(200_001), () => false), {
    name: 'ExpositionError',
    code: 'too-many-series',
    message: /over 200000 samples/,
  })
  assert.equal(read('a 1\n'.repeat(200_000), () => false).series, 200_000)
  assert.throws(() => read('#'.repeat(16 * 1024 * 1024 + 1)), { code: 'page-too-large' })
})

test('of names that are not wanted nothing but the name is read, once', () => {
  const asked: string[] = []
  const { samples, series, malformed } = read('a{broken 1\nb 2\na 3\nab 4\na{} 5\n', (name) => {
    asked.push(name)
    return name === 'b'
  })
  assert.deepEqual([samples.map(({ value }) => value), series, malformed], [[2], 5, 0])
  assert.deepEqual(asked, ['a', 'b', 'ab'])
})

/** A page as an engine serves it: histograms with many buckets, and few counters. */
function pageOf(bytes: number): string {
  const lines: string[] = []
  for (let length = 0, i = 0; length < bytes; i++) {
    const family = `vllm:family_${i}_seconds`
    const labels = `engine="0",model_name="acme/some-model-70b-instruct"`
    const block = [`# HELP ${family} Histogram of seconds.`, `# TYPE ${family} histogram`]
    for (let le = 0; le < 20; le++) block.push(`${family}_bucket{${labels},le="${le / 10}"} ${i * le}.0`)
    block.push(`${family}_sum{${labels}} 12.5`, `${family}_count{${labels}} 3.0`)
    lines.push(...block)
    length += block.join('\n').length + 1
  }
  lines.push('vllm:prompt_tokens_total{engine="0",model_name="acme/some-model-70b-instruct"} 126901.0', '')
  return lines.join('\n')
}

test('300 kB are read in 3 ms of CPU where a dozen families are wanted', () => {
  const page = pageOf(300_000)
  const isWanted = (name: string) => name === 'vllm:prompt_tokens_total' || name.startsWith('vllm:family_1_')
  let samples = 0
  const costsMs = Array.from({ length: 40 }, () => {
    samples = 0
    const before = process.cpuUsage()
    parseExposition(page, isWanted, () => {
      samples += 1
    })
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  })
  assert.equal(samples, 23)
  const medianMs = costsMs.toSorted((a, b) => a - b)[20]!
  assert.ok(medianMs <= 3, `it took ${medianMs} ms`)
})
