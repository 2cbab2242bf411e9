// An engine's page as counters: each engine's names old and new, families that state the same tokens again, what is no
// number. And each captured page of a real engine with what it must be read as, where captures lie beside the
// repository.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { engineOf, readEnginePage } from '../../../src/agent/engine/engine-page.ts'
import { type EngineUsage, usageByModel } from '../../../src/agent/engine/engine-usage.ts'

const page = (...lines: string[]) => lines.map((line) => `${line}\n`).join('')

function read(text: string) {
  return readEnginePage(text) ?? assert.fail('it is no engine')
}

/** Prompt, cached, completion, requests by model. */
function tokensOf(text: string): Record<string, (number | null)[]> {
  const usages = usageByModel(read(text).series)
  const line = ({ prompt, cached, completion, requests }: EngineUsage) => [prompt, cached, completion, requests]
  return Object.fromEntries(usages.map((usage) => [usage.model ?? '', line(usage)]))
}

const VLLM = page(
  '# TYPE process_start_time_seconds gauge',
  'process_start_time_seconds 1.7e+09',
  '# TYPE vllm:num_requests_running gauge',
  'vllm:num_requests_running{engine="0",model_name="quail-7b"} 3.0',
  'vllm:num_requests_running{engine="1",model_name="quail-7b"} 2.0',
  '# TYPE vllm:num_requests_waiting gauge',
  'vllm:num_requests_waiting{engine="0",model_name="quail-7b"} 1.0',
  '# TYPE vllm:kv_cache_usage_perc gauge',
  'vllm:kv_cache_usage_perc{engine="0",model_name="quail-7b"} 0.25',
  'vllm:kv_cache_usage_perc{engine="1",model_name="quail-7b"} 0.5',
  '# TYPE vllm:prefix_cache_hits_total counter',
  'vllm:prefix_cache_hits_total{engine="0",model_name="quail-7b"} 999.0',
  '# TYPE vllm:prompt_tokens_total counter',
  'vllm:prompt_tokens_total{engine="0",model_name="quail-7b"} 100.0 # {trace_id="a"} 1.0 1.7e9',
  'vllm:prompt_tokens_total{engine="1",model_name="quail-7b"} 50.0 1700000000000',
  '# TYPE vllm:prompt_tokens_created gauge',
  'vllm:prompt_tokens_created{engine="0",model_name="quail-7b"} 1.7e+09',
  '# TYPE vllm:prompt_tokens_by_source_total counter',
  'vllm:prompt_tokens_by_source_total{engine="0",model_name="quail-7b",source="local_compute"} 60.0',
  'vllm:prompt_tokens_by_source_total{engine="0",model_name="quail-7b",source="local_cache_hit"} 30.0',
  'vllm:prompt_tokens_by_source_total{engine="0",model_name="quail-7b",source="external_kv_transfer"} 10.0',
  '# TYPE vllm:prompt_tokens_cached_total counter',
  'vllm:prompt_tokens_cached_total{engine="0",model_name="quail-7b"} 40.0',
  '# TYPE vllm:generation_tokens_total counter',
  'vllm:generation_tokens_total{engine="0",model_name="quail-7b"} 7.0',
  '# TYPE vllm:request_success_total counter',
  'vllm:request_success_total{engine="0",finished_reason="stop",model_name="quail-7b"} 2.0',
  'vllm:request_success_total{engine="0",finished_reason="length",model_name="quail-7b"} 1.0',
  '# TYPE vllm:iteration_tokens_total histogram',
  'vllm:iteration_tokens_total_sum{engine="0",model_name="quail-7b"} 107.0',
  '# TYPE vllm:request_prefill_time_seconds histogram',
  'vllm:request_prefill_time_seconds_sum{engine="0",model_name="quail-7b"} 0.5',
  '# TYPE vllm:request_decode_time_seconds histogram',
  'vllm:request_decode_time_seconds_sum{engine="0",model_name="quail-7b"} 1.5',
)

test('vLLM: ranks are summed, what states the same tokens again is not', () => {
  const { series, ...rest } = read(VLLM)
  assert.deepEqual(usageByModel(series), [
    {
      model: 'quail-7b',
      base: null,
      prompt: 150,
      cached: 40,
      completion: 7,
      requests: 3,
      prefillSeconds: 0.5,
      decodeSeconds: 1.5,
    },
  ])
  assert.deepEqual(rest, {
    engine: 'vllm',
    startMs: 1_700_000_000_000,
    unusable: [],
    gauges: new Map([['quail-7b', { running: 5, waiting: 1, kvUse: 0.5 }]]),
    isCut: false,
    faults: [],
  })
})

test('vLLM: without the family of cached tokens its sources are summed, and without either it is unknown', () => {
  const without = (pattern: RegExp) => VLLM.replaceAll(pattern, '')
  assert.deepEqual(tokensOf(without(/^vllm:prompt_tokens_cached_total.*\n/gm)), { 'quail-7b': [150, 40, 7, 3] })
  const neither = without(/^vllm:prompt_tokens_(?:cached|by_source)_total.*\n/gm)
  assert.deepEqual(tokensOf(neither), { 'quail-7b': [150, null, 7, 3] })
})

test('an adapter is the model, and its base is kept', () => {
  const text = page(
    'vllm:prompt_tokens_total{lora_name="otter",model_name="quail-7b"} 5',
    'vllm:prompt_tokens_total{lora_name="",model_name="quail-7b"} 3',
  )
  const named = usageByModel(read(text).series).map(({ model, base, prompt }) => [model, base, prompt])
  assert.deepEqual(named, [
    ['otter', 'quail-7b', 5],
    ['quail-7b', null, 3],
  ])
})

test('SGLang: tensor-parallel ranks state one count, data-parallel ones their own; with either prefix', () => {
  const lines = (prefix: string) =>
    page(
      `${prefix}prompt_tokens_total{model_name="heron",dp_rank="0",tp_rank="0"} 40`,
      `${prefix}prompt_tokens_total{model_name="heron",dp_rank="0",tp_rank="1"} 40`,
      `${prefix}prompt_tokens_total{model_name="heron",dp_rank="1",tp_rank="2"} 2`,
      `${prefix}cached_tokens_total{model_name="heron",cache_source="device"} 6`,
      `${prefix}cached_tokens_total{model_name="heron",cache_source="host"} 1`,
      `${prefix}generation_tokens_total{model_name="heron"} 9`,
      `${prefix}num_requests_total{model_name="heron"} 4`,
      `${prefix}num_running_reqs{model_name="heron",dp_rank="0",tp_rank="0"} 3`,
      `${prefix}num_running_reqs{model_name="heron",dp_rank="0",tp_rank="1"} 3`,
      `${prefix}num_running_reqs{model_name="heron",dp_rank="1",tp_rank="2"} 1`,
      `${prefix}token_usage{model_name="heron",dp_rank="0",tp_rank="0"} 0.5`,
    )
  for (const prefix of ['sglang:', 'sglang_']) {
    assert.deepEqual(tokensOf(lines(prefix)), { heron: [42, 7, 9, 4] })
    assert.equal(read(lines(prefix)).engine, 'sglang')
    assert.deepEqual([...read(lines(prefix)).gauges], [['heron', { running: 4, waiting: null, kvUse: 0.5 }]])
  }
})

test('SGLang: of a request that is split over two servers each token is counted once', () => {
  const server = (role: string, completion: number) =>
    page(
      `sglang:num_running_reqs{engine_type="${role}",model_name="heron"} 0`,
      'sglang:prompt_tokens_total{model_name="heron"} 40',
      `sglang:generation_tokens_total{model_name="heron"} ${completion}`,
      'sglang:num_requests_total{model_name="heron"} 1',
    )
  assert.deepEqual(tokensOf(server('prefill', 1)), { heron: [40, null, null, null] })
  assert.deepEqual(tokensOf(server('decode', 9)), { heron: [null, null, 9, 1] })
  assert.deepEqual(tokensOf(server('unified', 9)), { heron: [40, null, 9, 1] })
})

test('llama.cpp: cached tokens are added to the processed ones; a maximum and drafts are no tokens', () => {
  const text = page(
    '# TYPE llamacpp:prompt_tokens_total counter',
    'llamacpp:prompt_tokens_total 30',
    '# TYPE llamacpp:prompt_tokens_cached_total counter',
    'llamacpp:prompt_tokens_cached_total 1.00018e+06',
    'llamacpp:tokens_predicted_total 12',
    'llamacpp:n_tokens_max 99',
    'llamacpp:spec_decode_num_draft_tokens_total 50',
    'llamacpp:requests_processing 2',
  )
  assert.deepEqual(tokensOf(text), { '': [1_000_210, 1_000_180, 12, null] })
  assert.deepEqual([...read(text).gauges], [[null, { running: 2, waiting: null, kvUse: null }]])
})

test('Dynamo: its frontend, with names old and new', () => {
  const text = page(
    'dynamo_frontend_input_sequence_tokens_sum{model="wren"} 70',
    'dynamo_frontend_cached_tokens_sum{model="wren"} 20',
    'dynamo_frontend_output_sequence_tokens_sum{model="wren"} 8',
    'dynamo_frontend_requests_total{endpoint="chat",model="wren",status="success"} 3',
    'dynamo_frontend_requests_total{endpoint="chat",model="wren",status="error"} 1',
    'dynamo_frontend_inflight_requests{model="wren"} 2',
  )
  assert.deepEqual(tokensOf(text), { wren: [70, 20, 8, 4] })
  assert.equal(read(text).gauges.get('wren')?.running, 2)
  const newer = `${text}dynamo_frontend_output_tokens_total{model="wren"} 9\n`
  assert.deepEqual(tokensOf(newer), { wren: [70, 20, 9, 4] })
})

test('what is no number of tokens is left out and named', () => {
  const text = page(
    'vllm:prompt_tokens_total{model_name="a"} NaN',
    'vllm:prompt_tokens_total{model_name="b"} +Inf',
    'vllm:prompt_tokens_total{model_name="c"} -4',
    'vllm:prompt_tokens_total{model_name="d"} 5',
    'vllm:prompt_tokens_total{model_name="d"} 6',
    '# TYPE vllm:generation_tokens_total gauge',
    'vllm:generation_tokens_total{model_name="d"} 6',
  )
  assert.deepEqual(tokensOf(text), { d: [5, null, null, null] })
  assert.deepEqual(read(text).faults, [
    'vllm:prompt_tokens_total has the value NaN: it is not read',
    'vllm:prompt_tokens_total has the value +Inf: it is not read',
    'vllm:prompt_tokens_total has the value -4: it is not read',
    'vllm:prompt_tokens_total{model_name="d"} stands on the page more than once: the first is used',
    'vllm:generation_tokens_total is a gauge, expected a counter: it is not read',
  ])
})

test('an engine that has served nothing yet speaks by its types; a page that is cut is known as such', () => {
  assert.equal(engineOf(page('# TYPE sglang:prompt_tokens_total counter')), 'sglang')
  assert.equal(engineOf(page('# TYPE vllm:prompt_tokens counter')), 'vllm')
  assert.equal(engineOf(page('# TYPE vllm:num_requests_running gauge', 'vllm:num_requests_running 1')), null)
  assert.equal(engineOf(page('# TYPE go_goroutines gauge', 'go_goroutines 7')), null)
  assert.equal(engineOf('<html>'), null)
  assert.equal(read(VLLM.slice(0, -3)).isCut, true)
})

const CAPTURES = '../shared/captures'
const skip = existsSync(CAPTURES) ? false : 'no captures lie beside the repository'
const capture = (file: string) => readFileSync(`${CAPTURES}/${file}`, 'utf8')

/** As the index beside the files states them: engine, then prompt, cached, completion, requests by model. */
const INDEX: Record<string, [engine: string, Record<string, (number | null)[]>]> = {
  'vllm/v0.1x-2026-03-complete-zero.prom': ['vllm', { 'Qwen/Qwen2.5-0.5B-Instruct': [0, 0, 0, 0] }],
  'vllm/v0.7-aibrix-docs.prom': ['vllm', { 'Qwen/Qwen2.5-Coder-1.5B-Instruct': [148, null, 955, 4] }],
  'vllm/v1-fresh-zero-with-created.prom': ['vllm', { 'llama-vllm-single': [0, null, 0, null] }],
  'vllm/by-source-one-running-request.prom': ['vllm', { 'kimi27-code-pp13': [126_901, 0, 2199, 0] }],
  'vllm/handmade-vllm-cost-meter-no-engine-label.prom': [
    'vllm',
    { 'meta-llama/Meta-Llama-3.1-8B-Instruct': [2_345_678, null, 1_234_567, 4567] },
  ],
  'sglang/v0.4-docs-one-request.prom': ['sglang', { 'meta-llama/Llama-3.1-8B-Instruct': [7, null, 8, null] }],
  'sglang/v0.5.10-datadog.prom': ['sglang', { 'facebook/opt-125m': [5, 1, 32, 1] }],
  'tgi/handmade-minimal.prom': ['tgi', { '': [143, null, 250, 12] }],
  'llamacpp/no-cached-series.prom': ['llama.cpp', { '': [25, null, 200, null] }],
  'llamacpp/cached-small-partial.prom': ['llama.cpp', { '': [128, 63, 48, 2] }],
  'lab/vllm-0.32.0-main/00-fresh.prom': ['vllm', { 'lab-tiny': [7, 0, 8, 1] }],
  'lab/vllm-0.32.0-main/01-after.prom': ['vllm', { 'lab-tiny': [7 + 568, 192, 8 + 179, 1 + 20] }],
  'lab/vllm-0.32.0-two-api-servers/01-after.prom': ['vllm', { 'lab-tiny': [954, 576, 166, 17] }],
  'lab/vllm-0.32.0-lora-alias/01-after.prom': ['vllm', { 'lab-tiny': [656, 192, 52, 8] }],
  'lab/vllm-0.32.0-ngram-speculation/01-after.prom': ['vllm', { 'lab-tiny': [954, 576, 168, 17] }],
  'lab/llamacpp-b11434/00-fresh.prom': ['llama.cpp', { '': [0, 0, 0, null] }],
  'lab/llamacpp-b11434/01-after.prom': ['llama.cpp', { '': [855, 481, 157, null] }],
  'lab/llamacpp-b11434/02-restarted.prom': ['llama.cpp', { '': [0, 0, 0, null] }],
  'lab/llamacpp-b11434/03-after-restart-one.prom': ['llama.cpp', { '': [34, 0, 12, null] }],
  'lab/llamacpp-b11434-past-a-million/03-ten-more.prom': ['llama.cpp', { '': [1_029_599, 1_026_570, 390, null] }],
}

for (const [file, [engine, tokens]] of Object.entries(INDEX)) {
  test(`${file} gives what its index states`, { skip }, () => {
    const text = capture(file)
    assert.equal(engineOf(text), engine)
    assert.deepEqual(tokensOf(text), tokens)
    assert.deepEqual(
      read(text).faults.filter((fault) => !fault.startsWith('The page ends within')),
      [],
    )
  })
}

test('two captured pages of an engine without start time, and one with', { skip }, () => {
  assert.equal(read(capture('lab/vllm-0.32.0-two-api-servers/00-fresh.prom')).startMs, null)
  assert.equal(read(capture('vllm/v0.1x-2026-03-complete-zero.prom')).startMs, 1_774_011_384_600)
})

test('pages that are no engine’s', { skip }, () => {
  for (const file of ['dcgm/l4-complete-580.prom', 'litellm/handmade-v1.95-label-shape.prom'])
    assert.equal(engineOf(capture(file)), null)
})
