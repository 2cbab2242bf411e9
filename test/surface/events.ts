// The events of the surface tests: every optional field somewhere, hosts that are named, unknown and inferred, several
// GPUs, late ones, and tenants enough for the sums that a span of many rows carries; and a price book with a rule of
// each kind.

const MINUTE = 60_000
/** A span carries sums from 32 rows on. */
const TENANTS = 40

/** Samples around an instant: a host with all fields, a GPU of one host only, one without host and most fields. */
export function samplesAt(t0: number): object[] {
  const samples: object[] = []
  for (let at = t0 - MINUTE; at <= t0 + MINUTE; at += 15_000) {
    samples.push({
      ...{ ts: new Date(at).toISOString(), host: 'h1', gpu_index: 0, name: 'NVIDIA L4', utilization: 0.5 },
      ...{ mem_used_mb: 20_000, mem_total_mb: 24_000.5, power_w: 60.5, price_per_hour_usd: 0.8, uuid: 'GPU-0' },
      ...{ event_id: `s0-${(at - t0) / 1000}`, energy_j: 1_000_000 + (at - t0) / 100, mig_profile: '1g.10gb' },
      ...{ model_loaded: 'llama', unknown: { deep: [1, 'a', null, true] } },
    })
    samples.push({ ts: at, host: 'h1', gpu_index: 1, event_id: `s1-${(at - t0) / 1000}`, uuid: 'GPU-1', power_w: 100 })
    samples.push({ ts: at, gpu_index: 2, event_id: `s2-${(at - t0) / 1000}`, utilization: 0.25, name: 'NVIDIA A2' })
  }
  // One that holds a model and serves no request, one that holds none.
  const idle = { host: 'h2', utilization: 0, mem_used_mb: 30_000, mem_total_mb: 80_000, name: 'NVIDIA H100' }
  for (let at = t0 - MINUTE; at <= t0 + MINUTE; at += 15_000) {
    samples.push({ ...idle, ts: at, gpu_index: 3, model_loaded: 'qwen', event_id: `s3-${(at - t0) / 1000}` })
    samples.push({ ...idle, ts: at, gpu_index: 4, mem_used_mb: 0, event_id: `s4-${(at - t0) / 1000}` })
  }
  return samples
}

/** Token usage around an instant; one comes two hours late. */
export function tokensAt(t0: number): object[] {
  const counts = { prompt_tokens: 1000, completion_tokens: 200 }
  const at = (ms: number) => ({ ts: new Date(t0 + ms).toISOString(), ...counts })
  return [
    {
      ...{ ...at(500), host: 'h1', gpu_index: 0, model: 'llama', latency_ms: 12.5, tenant: 'chat', event_id: 't0' },
      ...{ cached_prompt_tokens: 100, requests: 3, interval_s: 1.5, engine: 'vllm', request_id: 'r0' },
      ...{ prefill_ms: 2.5, decode_ms: 10, unknown: { deep: [1, 'a', null, true] } },
    },
    { ...at(1000), host: 'h1', gpus: [1, 0], model: 'llama', tenant: 'batch', event_id: 't1' },
    { ...at(2000), gpu_index: 1, model: 'qwen', event_id: 'host-is-inferred' },
    { ...at(3000), gpu_index: 7, model: 'qwen', event_id: 'host-is-unknown' },
    { ...at(4000), host: 'h1', gpu_index: 0, model: 'llama', ts: t0 + 4000 },
    { ...at(5000), host: 'no-samples', gpu_index: 0, model: 'llama', event_id: 'assumed' },
    { ...at(-120 * MINUTE), host: 'h1', gpu_index: 0, model: 'llama', event_id: 'late' },
    ...Array.from({ length: TENANTS }, (_, i) => {
      return { ...at(6000 + i), host: 'h1', gpu_index: 0, model: 'llama', tenant: `t${i}`, event_id: `tenant-${i}` }
    }),
  ]
}

/** A price book with a rule of each kind and all options; its reserved GPU is unreported around an instant. */
export function bookAt(t0: number): object {
  const [from, to] = [t0 - 2 * MINUTE, t0 + 3 * MINUTE].map((ms) => new Date(ms).toISOString())
  return {
    currency: 'USD',
    default_usd_per_hour: 0.95,
    weights: { input: 1, cached: 0.1, output: 4 },
    limits: { max_sample_gap_s: 90, max_models_per_cell: 32, max_tenants_per_cell: 100 },
    rules: [
      { id: 'dark', match: { host: 'dark', gpu_index: 0 }, kind: 'reserved', usd_per_hour: 1.37, from, to },
      { id: 'uuid', match: { uuid: 'GPU-1' }, kind: 'spot', usd_per_hour: 0.77 },
      { id: 'host', match: { host: 'no-samples' }, kind: 'on-demand', usd_per_hour: 3.33 },
      {
        ...{ id: 'own', match: { name: 'NVIDIA H100*' }, kind: 'owned', purchase_usd: 33_120, salvage_usd: 6840 },
        ...{ life_years: 3, usd_per_kwh: 0.2, pue: 1.4 },
      },
    ],
  }
}
