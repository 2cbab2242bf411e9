// Files and events of the kinds that users of this trade report as trouble, written for these tests with invented names:
// what producers, editors, exporters and drivers really send. Each has one right value, in public-inputs.test.ts.

const START_MS = Date.UTC(2026, 10, 20, 6)

/** Seven samples over one minute. */
function minuteOf(gpu: object, change: (i: number) => object = () => ({}), shiftMs = 0): object[] {
  return Array.from({ length: 7 }, (_, i) => ({
    ts: new Date(START_MS + i * 10_000 + shiftMs).toISOString(),
    event_id: `${JSON.stringify(gpu).length}-${shiftMs}-${i}`,
    name: 'NVIDIA H100 80GB HBM3',
    ...gpu,
    ...change(i),
  }))
}

const json = (value: unknown) => `${JSON.stringify(value)}\n`
const usage = { ts: '2026-11-20T06:00:00.000Z', model: 'm', prompt_tokens: 10, completion_tokens: 5, gpu_index: 0 }
const own = { host: 'own-1', gpu_index: 0, utilization: 0.5, power_w: 300 }
const smi = (...lines: string[]) => `#!/bin/sh\n${lines.join('\n')}\n`
const SMI_HEADER =
  'echo "index, uuid, name, utilization.gpu [%], memory.used [MiB], memory.total [MiB], power.draw [W], pci.bus_id, mig.mode.current"'
const SMI_ROW =
  'echo "0, GPU-22222222-0000-4000-8000-000000000002, Tesla T4, 3 %, 701 MiB, 15360 MiB, 9.12 W, 00000000:0C:00.0, [N/A]"'
const INFOROM = 'echo "WARNING: infoROM is corrupted at gpu 0000:0C:00.0"'

export const OWN_INPUTS: Readonly<Record<string, string>> = {
  'big-integer.json':
    '{"ts":"2026-11-20T06:00:00Z","model":"m","prompt_tokens":1,"completion_tokens":1,"gpu_index":0,"host":"j","trace_id":9007199254740993123}\n',
  'book-bare-star.yaml':
    'currency: USD\nrules:\n  - id: h100\n    match: { name: *H100* }\n    kind: on-demand\n    usd_per_hour: 2.5\n',
  'book-label-names.yaml':
    'currency: USD\nrules:\n  - { id: h100, match: { name: "NVIDIA-H100-80GB-HBM3" }, kind: on-demand, usd_per_hour: 2.5 }\n',
  'book-owned.yaml':
    'currency: USD\ndefault_usd_per_hour: 0.85\nrules:\n' +
    '  - { id: own, match: { host: own-1 }, kind: owned, purchase_usd: 26280, life_years: 3, usd_per_kwh: 0.2 }\n' +
    '  - { id: h100, match: { name: "NVIDIA H100*" }, kind: on-demand, usd_per_hour: 3.6 }\n',
  'book-wrong-kind.yaml':
    'currency: USD\nrules:\n  - { id: 1, match: { host: 10 }, kind: On-Demand, usd_per_hour: "2.50", until: 2026-01-01 }\n',
  'cloudevent-base64.json': json({
    ...{ specversion: '1.0', type: 'x.gpu.metrics.v1', source: '/own', id: 'b64', datacontenttype: 'application/json' },
    data_base64: Buffer.from(
      JSON.stringify({ ts: '2026-11-20T06:00:00.000Z', host: 'sdk', gpu_index: 0, utilization: 0.5 }),
    ).toString('base64'),
  }),
  'energy-other-gpu.json': json(
    minuteOf(own, (i) => ({ uuid: i < 3 ? 'GPU-a' : 'GPU-b', energy_j: (i < 3 ? 1e6 : 9e9) + i * 3000 })),
  ),
  'energy-zero-and-back.json': json(
    minuteOf(own, (i) => ({ uuid: 'GPU-a', energy_j: i === 3 ? 0 : 15_000_000 + i * 3000 })),
  ),
  'env-bom.txt': '\uFEFFPRICE_PER_HOUR_USD=2.49\r\nLOG_LEVEL=warn\r\n',
  'host-fqdn-samples.json': json(
    minuteOf({
      host: 'gpu-1',
      gpu_index: 0,
      utilization: 0.9,
      uuid: 'GPU-e',
      mem_used_mb: 70_000,
      mem_total_mb: 81_559,
    }),
  ),
  'host-fqdn-tokens.json': json([
    {
      ...usage,
      ts: '2026-11-20T06:00:05.000Z',
      model: 'llama-3',
      prompt_tokens: 1000,
      completion_tokens: 200,
      host: 'gpu-1.example.com',
    },
  ]),
  'http-quoted-headers.txt':
    'POST /api/v1/events HTTP/1.1\ncontent-type: application/json\nce-specversion: "1.0"\nce-type: "x.gpu.metrics.v1"\n' +
    'ce-source: "/my src"\nce-id: "q1"\n\n{"ts":"2026-11-20T06:00:00Z","host":"gpu-1","gpu_index":0,"utilization":0.5}\n',
  'interval-hour-samples.json': json(
    Array.from({ length: 61 }, (_, i) => ({
      ts: new Date(START_MS + 3_600_000 + i * 60_000).toISOString(),
      ...{ host: 'box-3', gpu_index: 0, event_id: `h${i}`, name: 'NVIDIA H100 80GB HBM3', utilization: 0.8 },
    })),
  ),
  'interval-hour-tokens.json': json([
    {
      ...{ ts: '2026-11-20T07:59:50.000Z', host: 'box-3', gpu_index: 0, model: 'mixtral', requests: 500 },
      ...{ prompt_tokens: 1_000_000, completion_tokens: 200_000, interval_s: 3600, event_id: 'agg1' },
    },
  ]),
  'model-at-sign.json': json([{ ...usage, host: 'w1', model: '@vendor/small-8b', tenant: '@team' }]),
  'null-figures.json': json([
    {
      ts: usage.ts,
      gpu_index: 0,
      host: 'gpu-1',
      name: 'NVIDIA GB10',
      utilization: 0.5,
      mem_used_mb: null,
      power_w: null,
    },
  ]),
  'null-optional.json': json([{ ...usage, host: 'gpu-1', tenant: null, latency_ms: null }]),
  'record-stray-header.tsv': `# header\tvalue\nce_other: x\t${JSON.stringify({ ...usage, ts: 'ISO', host: 'k1' })}\n`,
  'record-times.tsv':
    `# record timestamp\tvalue\n-1\t${JSON.stringify({ ...usage, ts: 'ISO' })}\n` +
    `NOW/1000\t${JSON.stringify({ ...usage, ts: 'ISO' })}\nNOW*1000000\t{"broken":\n`,
  'same-id-no-host.json': json([
    { ...usage, event_id: '1' },
    { ...usage, model: 'b', gpu_index: 3, event_id: '1' },
  ]),
  'smi-banner-first.sh': smi(INFOROM, SMI_HEADER, SMI_ROW, 'exit 14'),
  'smi-nvml-unknown.sh': smi('echo "Failed to initialize NVML: Unknown Error"', 'exit 255'),
  'smi-stderr-noise.sh': smi(
    `echo "ERROR: ld.so: object '/opt/x.so' from /etc/ld.so.preload cannot be preloaded: ignored." >&2`,
    SMI_HEADER,
    SMI_ROW,
  ),
  'time-float-ms.json': json([{ ...usage, ts: 1_795_152_000_123.4568, host: 'j' }]),
  'time-local-ahead.txt': `${JSON.stringify({ ...usage, ts: '2026-11-28T04:00:00', host: 'j' })}\n# posted at 2026-11-27T20:00Z\n`,
  'time-no-seconds.json': json([{ ...usage, ts: '2026-11-20T06:00Z', host: 'j' }]),
  'trace-extra-column.csv':
    'TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00.012345,1,1823,44\n2024-10-15 00:00:00.512345,0,320,12\n',
  'trace-gap-30-days.jsonl': ['2026-09-01', '2026-10-01']
    .map((day) => json({ ...usage, ts: `${day}T00:00:00Z`, host: 'h' }))
    .join(''),
  'trace-mongoexport.jsonl':
    '{"_id":{"$oid":"60f6d845caa1861dcf1631ae"},"ts":{"$date":"2026-11-20T10:00:00.000Z"},"model":"m","prompt_tokens":100,"completion_tokens":20,"latency_ms":812.5,"gpu_index":0,"host":"gpu-1"}\n' +
    '{"_id":{"$oid":"60f6d845caa1861dcf1631af"},"ts":"2026-11-20T10:00:01Z","model":"m","prompt_tokens":{"$numberLong":"100"},"completion_tokens":20,"gpu_index":0,"host":"gpu-1"}\n',
  'trace-quoted.csv': '"TIMESTAMP","ContextTokens","GeneratedTokens"\n"2023-11-16 18:17:03.9799600",4808,10\n',
  'two-gpus-one-slot.json': json([
    ...minuteOf({ host: 'box-2', gpu_index: 0, uuid: 'GPU-c', utilization: 0.9 }),
    ...minuteOf({ host: 'box-2', gpu_index: 0, uuid: 'GPU-d', utilization: 0.1 }, () => ({}), 5000),
  ]),
}
