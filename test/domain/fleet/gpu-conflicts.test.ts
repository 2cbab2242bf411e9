// Which samples contradict the identity of a GPU, and which only show that it was exchanged; and which host names of
// tokens are likely to be a sampled host in another spelling.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type GpuConflict, GpuConflicts } from '../../../src/domain/fleet/gpu-conflicts.ts'
import { hostSpellings } from '../../../src/domain/fleet/host-spellings.ts'

type Seen = Parameters<GpuConflicts['add']>[0]
const seen = (seconds: number, uuid: string, more: Partial<Seen> = {}): Seen => ({
  ...{ ts: new Date(1000 * seconds), host: 'box-2', gpu_index: 0, uuid, name: 'NVIDIA H100' },
  ...more,
})

function conflictsOf(samples: Seen[]): GpuConflict[] {
  const conflicts = new GpuConflicts()
  for (const sample of samples) conflicts.add(sample)
  return conflicts.list()
}

const slot = { host: 'box-2', gpu_index: 0 }
const CASES: [string, Seen[], GpuConflict[]][] = [
  ['one GPU in its slot', [seen(0, 'GPU-c'), seen(10, 'GPU-c')], []],
  [
    'two GPUs of one name in one slot',
    [seen(0, 'GPU-c'), seen(5, 'GPU-d'), seen(10, 'GPU-c'), seen(15, 'GPU-d')],
    [{ kind: 'two_uuids_in_slot', ...slot, uuids: ['GPU-c', 'GPU-d'] }],
  ],
  [
    'the same, at one instant',
    [seen(0, 'GPU-c'), seen(0, 'GPU-d')],
    [{ kind: 'two_uuids_in_slot', ...slot, uuids: ['GPU-c', 'GPU-d'] }],
  ],
  [
    'a board that was exchanged, with its newest sample first',
    [seen(30, 'GPU-d'), seen(0, 'GPU-c'), seen(20, 'GPU-d')],
    [],
  ],
  [
    'three, one of which was there alone',
    [seen(0, 'GPU-z'), seen(10, 'GPU-c'), seen(40, 'GPU-c'), seen(20, 'GPU-d')],
    [{ kind: 'two_uuids_in_slot', ...slot, uuids: ['GPU-c', 'GPU-d'] }],
  ],
  [
    'one GPU in two slots, by equal names',
    [seen(0, 'GPU-c'), seen(10, 'GPU-c', { gpu_index: 1 })],
    [{ kind: 'uuid_in_two_slots', uuid: 'GPU-c', slots: [slot, { ...slot, gpu_index: 1 }] }],
  ],
  [
    'two GPUs of two names in one slot',
    [seen(0, 'GPU-c'), seen(5, 'GPU-d', { name: 'NVIDIA L4' }), seen(10, 'GPU-c')],
    [
      { kind: 'two_uuids_in_slot', ...slot, uuids: ['GPU-c', 'GPU-d'] },
      { kind: 'two_names_in_slot', ...slot, names: ['NVIDIA H100', 'NVIDIA L4'] },
    ],
  ],
]
for (const [title, samples, expected] of CASES) {
  test(`conflicts: ${title}`, () => {
    assert.deepEqual(conflictsOf(samples), expected)
    assert.deepEqual(conflictsOf(samples.toReversed()), expected)
  })
}

test('a host that only tokens name is told where a sampled one differs by case or domain only', () => {
  const sampled = ['gpu-1', 'Web.example.com', 'db', 'a.one.test'].map((host) => ({ host, gpu_index: 0 }))
  const cases: [string, number, string | null][] = [
    ['gpu-1.example.com', 0, 'gpu-1'],
    ['GPU-1', 0, 'gpu-1'],
    ['gpu-1.', 0, 'gpu-1'],
    ['web', 0, 'Web.example.com'],
    ['gpu-1', 0, null],
    ['gpu-1.example.com', 1, null],
    ['gpu-10', 0, null],
    ['a.two.test', 0, null],
    ['elsewhere', 0, null],
  ]
  for (const [host, gpu_index, sampleHost] of cases) {
    const expected = sampleHost === null ? [] : [{ tokenHost: host, sampleHost, gpu_indexes: [0] }]
    assert.deepEqual(hostSpellings([...sampled, { host: null, gpu_index: 0 }], [{ host, gpu_index }]), expected, host)
  }
  const used = [1, 0, 1].map((gpu_index) => ({ host: 'DB', gpu_index }))
  assert.deepEqual(hostSpellings([...sampled, { host: 'db', gpu_index: 1 }], used), [
    { tokenHost: 'DB', sampleHost: 'db', gpu_indexes: [0, 1] },
  ])
})
