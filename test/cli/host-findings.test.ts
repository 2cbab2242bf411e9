// What doctor finds in stored events about who is who, on an embedded store: two GPUs in one slot, a host under two
// spellings, and energy counters that are not believed. The other findings about hosts are in doctor.test.ts.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../src/cli/config.ts'
import { hostFindings, probeHosts } from '../../src/cli/doctor/host-findings.ts'
import type { GpuDocument, TokenDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'

const T0 = Date.UTC(2026, 5, 1, 12)

type Seen = { at: number } & Partial<GpuDocument>
const seen = (at: number, fields: Partial<GpuDocument> = {}): Seen => ({ at, ...fields })
const sampleOf = ({ at, ...fields }: Seen, i: number) => {
  const base = { ts: new Date(T0 + at * 1000), host: 'gpu-1', gpu_index: 0, name: 'NVIDIA H100', power_w: 300 }
  return { ...base, ...fields, _id: ownEventId('h', `s${i}`) } as unknown as GpuDocument
}
const tokenOf = (host: string) => {
  const counts = { prompt_tokens: 1, completion_tokens: 1, latency_ms: 1 }
  return {
    _id: ownEventId('h', 't'),
    ts: new Date(T0),
    host,
    gpu_index: 0,
    model: 'llama',
    ...counts,
  } as unknown as TokenDocument
}

const COUNTER = (what: string) =>
  `^The energy counter \\(energy_j\\) of "gpu-1" GPU 0 ${what}: its power_w is used instead`
const CASES: { title: string; samples: Seen[]; tokenHost?: string; found: [boolean | null, string][] }[] = [
  {
    title: 'all well',
    samples: [seen(0, { energy_j: 1 }), seen(10, { energy_j: 3001 })],
    tokenHost: 'gpu-1',
    found: [],
  },
  {
    title: 'two GPUs of one name take turns',
    samples: [seen(0, { uuid: 'GPU-c' }), seen(5, { uuid: 'GPU-d' }), seen(10, { uuid: 'GPU-c' })],
    found: [[false, '^"gpu-1" GPU 0 is sampled as GPU-c, GPU-d, which take turns, and only one GPU is paid for: give']],
  },
  { title: 'a board was exchanged', samples: [seen(0, { uuid: 'GPU-c' }), seen(10, { uuid: 'GPU-d' })], found: [] },
  {
    title: 'tokens with the full name of a host',
    samples: [seen(0)],
    tokenHost: 'GPU-1.example.com',
    found: [
      [false, '^Tokens name host "GPU-1.example.com", of which no sample came; "gpu-1" has samples of GPU 0: if'],
    ],
  },
  { title: 'tokens of a host that is not sampled', samples: [seen(0)], tokenHost: 'gpu-2', found: [] },
  {
    title: 'one reading of 0',
    samples: [10, 20, 0, 40].map((energy, i) => seen(i * 10, { energy_j: energy * 300 })),
    found: [[null, COUNTER('goes back')]],
  },
  {
    title: 'another unit from one reading on',
    samples: [seen(0, { energy_j: 3e5 }), seen(10, { energy_j: 3.03e8 })],
    found: [[null, COUNTER('leaps by more than a GPU can draw')]],
  },
  {
    title: 'a counter that has stopped',
    samples: [0, 30, 60].map((at) => seen(at, { energy_j: 5 })),
    found: [[null, COUNTER('rests while power is measured')]],
  },
]

for (const { title, samples, tokenHost, found } of CASES) {
  test(`hosts: ${title}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'pertoken-hosts-'))
    t.after(() => rmSync(folder, { recursive: true, force: true }))
    const store = new SqliteStore({ path: join(folder, 'store.sqlite') })
    t.after(() => store.close())
    await store.prepare()
    await store.writeDocuments(samples.map(sampleOf), tokenHost === undefined ? [] : [tokenOf(tokenHost)])
    const { config } = loadConfig({ env: { HOSTNAME: 'here' }, envFile: '', flags: {} })
    const findings = hostFindings(await probeHosts(store), config, false).filter(({ ok }) => ok !== true)
    assert.equal(findings.length, found.length, JSON.stringify(findings))
    for (const [i, [ok, message]] of found.entries()) {
      assert.equal(findings[i]!.ok, ok)
      assert.match(findings[i]!.message, new RegExp(message))
    }
  })
}
