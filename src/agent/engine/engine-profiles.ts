// What each inference engine calls its counters, as data. Families that state the same tokens again stand as
// alternatives in order of preference: the first that is on the page is read, the others never, so that nothing is
// counted twice. Suffixes are part of a name; the type decides what it is (`iteration_tokens_total` is a histogram).
// Drafted tokens, prefix cache hits (over-counted while requests wait) and averages are not read at all.

/** What a series counts; one meaning for all engines. Times are request-seconds: they overlap in a batch. */
export type Meaning = 'prompt' | 'cached' | 'completion' | 'requests' | 'prefillSeconds' | 'decodeSeconds'

/** Present state of an engine. */
export type GaugeName = 'running' | 'waiting' | 'kvUse'

export interface Family {
  /** After the engine's prefix. */
  name: string
  type: 'counter' | 'histogram'
  /** Series whose label has this value count something else. */
  except?: readonly [label: string, value: string]
}

export interface EngineProfile {
  engine: string
  prefixes: readonly string[]
  /** Label with the model's name; null: the engine serves one model and does not name it. */
  modelLabel: string | null
  /** For each meaning the alternatives; one has families that are added, and is taken where its first is there. */
  counters: Readonly<Partial<Record<Meaning, readonly (readonly Family[])[]>>>
  /** Alternatives, without the prefix. */
  gauges: Readonly<Partial<Record<GaugeName, readonly string[]>>>
}

const counter = (name: string, except?: Family['except']): Family => ({
  name,
  type: 'counter',
  ...(except === undefined ? {} : { except }),
})
/** Sum of a histogram. */
const sum = (name: string): Family => ({ name: `${name}_sum`, type: 'histogram' })

const VLLM: EngineProfile = {
  engine: 'vllm',
  prefixes: ['vllm:', 'vllm_'],
  modelLabel: 'model_name',
  counters: {
    // Includes cached tokens, whatever its help text states.
    prompt: [[counter('prompt_tokens_total')]],
    cached: [
      [counter('prompt_tokens_cached_total')],
      [counter('prompt_tokens_by_source_total', ['source', 'local_compute'])],
    ],
    completion: [[counter('generation_tokens_total')]],
    requests: [[counter('request_success_total')]],
    prefillSeconds: [[sum('request_prefill_time_seconds')]],
    decodeSeconds: [[sum('request_decode_time_seconds')]],
  },
  gauges: {
    running: ['num_requests_running'],
    waiting: ['num_requests_waiting'],
    kvUse: ['kv_cache_usage_perc', 'gpu_cache_usage_perc'],
  },
}

/** Its counters move when a request ends; an aborted one counts nothing. */
const SGLANG: EngineProfile = {
  engine: 'sglang',
  prefixes: ['sglang:', 'sglang_'],
  modelLabel: 'model_name',
  counters: {
    prompt: [[counter('prompt_tokens_total')]],
    cached: [[counter('cached_tokens_total')]],
    completion: [[counter('generation_tokens_total')]],
    requests: [[counter('num_requests_total')]],
  },
  gauges: { running: ['num_running_reqs'], waiting: ['num_queue_reqs'], kvUse: ['token_usage'] },
}

const LLAMACPP: EngineProfile = {
  engine: 'llama.cpp',
  prefixes: ['llamacpp:'],
  modelLabel: null,
  counters: {
    // The first excludes cached tokens.
    prompt: [[counter('prompt_tokens_total'), counter('prompt_tokens_cached_total')]],
    cached: [[counter('prompt_tokens_cached_total')]],
    completion: [[counter('tokens_predicted_total')]],
    // Of a fork; llama.cpp counts no requests.
    requests: [[counter('requests_total')]],
    prefillSeconds: [[counter('prompt_seconds_total')]],
    decodeSeconds: [[counter('tokens_predicted_seconds_total')]],
  },
  gauges: { running: ['requests_processing'], waiting: ['requests_deferred'], kvUse: ['kv_cache_usage_ratio'] },
}

const DYNAMO: EngineProfile = {
  engine: 'dynamo',
  prefixes: ['dynamo_frontend_'],
  modelLabel: 'model',
  counters: {
    prompt: [[sum('input_sequence_tokens')]],
    cached: [[sum('cached_tokens')]],
    completion: [[counter('output_tokens_total')], [sum('output_sequence_tokens')]],
    requests: [[counter('requests_total')]],
  },
  gauges: { running: ['active_requests', 'inflight_requests'], waiting: ['queued_requests'] },
}

/** Has no counters of tokens; failed requests are in the input, not in the output. */
const TGI: EngineProfile = {
  engine: 'tgi',
  prefixes: ['tgi_'],
  modelLabel: null,
  counters: {
    prompt: [[sum('request_input_length')]],
    completion: [[sum('request_generated_tokens')]],
    requests: [[counter('request_count')]],
  },
  gauges: { running: ['batch_current_size'], waiting: ['queue_size'] },
}

/** In this order: a page with two of them is the first's, as a frontend counts its engine's tokens again. */
export const ENGINE_PROFILES: readonly EngineProfile[] = [VLLM, SGLANG, LLAMACPP, TGI, DYNAMO]
