// A DCGM exporter's page as readings: names and labels old and new, what repeats, what is no figure. And each captured
// page of a real exporter, with what it must be read as, where captures lie beside the repository.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { readDcgmPage } from '../../../../src/agent/gpu/dcgm/dcgm-page.ts'
import type { DcgmFigures, GpuReading } from '../../../../src/agent/gpu/gpu-source.ts'

const UUID = 'GPU-00000000-0000-4000-8000-00000000000a'
const LABELS = `gpu="0",UUID="${UUID}",pci_bus_id="00000000:37:00.0",device="nvidia0",modelName="NVIDIA L4",Hostname="box"`

/** A page of one GPU: `NAME value` or `NAME{more,labels} value` a line. */
const pageOf = (...lines: string[]) =>
  lines
    .map((line) => {
      const [, name, more = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line)!
      return `${name}{${LABELS}${more === '' ? '' : `,${more}`}} ${value}\n`
    })
    .join('')

/** The one GPU of a page without faults. */
function gpuOf(...lines: string[]): Omit<GpuReading, 'dcgm'> & DcgmFigures {
  const { gpus, faults } = readDcgmPage(pageOf(...lines))
  assert.deepEqual([gpus.length, faults], [1, []])
  const { dcgm, ...reading } = gpus[0]!.reading
  return { ...reading, ...dcgm! }
}

test('a GPU is read with all that an event has room for', () => {
  const { gpus, faults } = readDcgmPage(
    pageOf(
      'DCGM_FI_DEV_GPU_UTIL 91',
      'DCGM_FI_DEV_FB_USED 5120',
      'DCGM_FI_DEV_FB_FREE 9791',
      'DCGM_FI_DEV_FB_RESERVED 447',
      'DCGM_FI_DEV_POWER_USAGE 68.244000',
      'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION 15152422938',
      'DCGM_FI_PROF_SM_ACTIVE 0.120000',
      'DCGM_FI_PROF_DRAM_ACTIVE 0.092781',
      'DCGM_FI_PROF_GR_ENGINE_ACTIVE 0.156205',
      'DCGM_FI_DEV_GPU_TEMP{namespace="serving",pod="m-7b-0"} 74',
    ),
  )
  assert.deepEqual(faults, [])
  assert.deepEqual(gpus, [
    {
      hostname: 'box',
      reading: {
        gpuIndex: 0,
        uuid: UUID,
        name: 'NVIDIA L4',
        utilization: 0.91,
        memUsedMb: 5120,
        memTotalMb: 15_358,
        powerW: 68.244,
        energyJ: 15_152_422.938,
        migProfile: null,
        pricePerHourUsd: null,
        dcgm: {
          smActive: 0.12,
          dramActive: 0.092781,
          grEngineActive: 0.156205,
          namespace: 'serving',
          pod: 'm-7b-0',
        },
      },
    },
  ])
})

test('names of the field naming standard are the same figures', () => {
  const gpu = gpuOf(
    'DCGM_FI_DEV_BOARD_POWER_WATTS 68.244000',
    'DCGM_FI_PROF_SM_UTIL_RATIO 0.120000',
    'DCGM_FI_PROF_DRAM_UTIL_RATIO 0.092781',
    'DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO 0.156205',
    'DCGM_FI_DEV_FB_TOTAL 23034',
    'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total 1500',
  )
  const { powerW, smActive, dramActive, grEngineActive, memTotalMb, energyJ } = gpu
  assert.deepEqual(
    [powerW, smActive, dramActive, grEngineActive, memTotalMb, energyJ],
    [68.244, 0.12, 0.092781, 0.156205, 23_034, 1.5],
  )
})

test('a utilization that is called a ratio is read by its form: integers are per cent, decimals are shares', () => {
  const rows: [text: string, utilization: number][] = [
    ['0', 0],
    ['1', 0.01],
    ['91', 0.91],
    ['100', 1],
    ['0.000000', 0],
    ['0.910000', 0.91],
    ['1.000000', 1],
    ['91.000000', 0.91],
  ]
  for (const [text, utilization] of rows)
    assert.equal(gpuOf(`DCGM_FI_DEV_GPU_UTIL_RATIO ${text}`).utilization, utilization, text)
})

test('numbers that mean that there is no figure are none', () => {
  const blanks = ['2147483632', '2147483635', '9223372036854775792', '9223372036854775794', '140737488355328.000000']
  for (const blank of [...blanks, '140737488355330', 'NaN']) {
    const { utilization, memUsedMb, powerW, energyJ, smActive } = gpuOf(
      `DCGM_FI_DEV_GPU_UTIL ${blank}`,
      `DCGM_FI_DEV_FB_USED ${blank}`,
      `DCGM_FI_DEV_POWER_USAGE ${blank}`,
      `DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION ${blank}`,
      `DCGM_FI_PROF_SM_ACTIVE ${blank}`,
    )
    assert.deepEqual([utilization, memUsedMb, powerW, energyJ, smActive], [null, null, null, null, null], blank)
  }
})

test('a figure that cannot be is unknown and reported', () => {
  const rows: [line: string, fault: RegExp][] = [
    ['DCGM_FI_DEV_GPU_UTIL 101', /^GPU 0: DCGM's utilization is 101, expected 0 to 100; taken as unknown$/],
    ['DCGM_FI_DEV_GPU_UTIL -1', /utilization is -1/],
    ['DCGM_FI_DEV_POWER_USAGE +Inf', /power is Infinity/],
    ['DCGM_FI_DEV_FB_USED -5', /used memory is -5/],
    ['DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION -1', /energy is -1/],
    ['DCGM_FI_PROF_SM_ACTIVE 55', /SM activity is 55, expected 0 to 1/],
  ]
  for (const [line, fault] of rows) {
    const { gpus, faults } = readDcgmPage(pageOf(line, 'DCGM_FI_DEV_FB_FREE 7'))
    assert.equal(gpus.length, 1)
    assert.equal(faults.length, 1)
    assert.match(faults[0]!, fault)
    const { dcgm, utilization, powerW, memUsedMb, energyJ } = gpus[0]!.reading
    assert.deepEqual([utilization, powerW, memUsedMb, energyJ, dcgm?.smActive], [null, null, null, null, null])
  }
  assert.equal(gpuOf('DCGM_FI_PROF_SM_ACTIVE 1.000012').smActive, 1)
})

test('total memory is known only where all of its parts are', () => {
  assert.equal(gpuOf('DCGM_FI_DEV_FB_USED 5120', 'DCGM_FI_DEV_FB_FREE 9791').memTotalMb, null)
  assert.equal(gpuOf('DCGM_FI_DEV_FB_USED 5120', 'DCGM_FI_DEV_FB_TOTAL 15360').memTotalMb, 15_360)
})

test('a split GPU draws its power once, and what an instance does is not what the GPU does', () => {
  const [a, b] = ['GPU_I_PROFILE="3g.40gb",GPU_I_ID="2"', 'GPU_I_PROFILE="1g.10gb",GPU_I_ID="13"']
  const perInstance = [
    `DCGM_FI_DEV_POWER_USAGE{${a}} 433.780000`,
    `DCGM_FI_DEV_POWER_USAGE{${b}} 433.780000`,
    `DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{${a}} 2000`,
    `DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{${b}} 2000`,
    `DCGM_FI_DEV_FB_USED{${b}} 1272`,
    `DCGM_FI_DEV_FB_USED{${a}} 7484`,
    `DCGM_FI_PROF_GR_ENGINE_ACTIVE{${a}} 0.900000`,
    `DCGM_FI_PROF_SM_ACTIVE{${a}} 0.800000`,
  ]
  const gpu = gpuOf(...perInstance)
  const { powerW, energyJ, memUsedMb, memTotalMb, utilization, smActive, grEngineActive, migProfile } = gpu
  assert.deepEqual(
    [powerW, energyJ, memUsedMb, memTotalMb, utilization, smActive, grEngineActive, migProfile],
    [433.78, 2, 8756, null, null, null, null, '3g.40gb,1g.10gb'],
  )
  const withBoard = gpuOf(
    ...perInstance,
    'DCGM_FI_DEV_GPU_UTIL 40',
    'DCGM_FI_DEV_FB_USED 9000',
    'DCGM_FI_DEV_POWER_USAGE 434.000000',
    'DCGM_FI_PROF_GR_ENGINE_ACTIVE 0.500000',
  )
  assert.deepEqual(
    [withBoard.powerW, withBoard.memUsedMb, withBoard.utilization, withBoard.grEngineActive],
    [434, 9000, null, 0.5],
  )
  const partly = gpuOf(`DCGM_FI_DEV_FB_USED{${a}} 7484`, `DCGM_FI_DEV_POWER_USAGE{${b}} 1`)
  assert.equal(partly.memUsedMb, null, 'of one instance the memory is not known')
})

test('a GPU that pods share is one GPU, and all of them are named', () => {
  const share = (name: string, value: string) =>
    ['b-0', 'a-1'].map((pod) => `${name}{container="main",namespace="ns-${pod[0]}",pod="${pod}"} ${value}`)
  const gpu = gpuOf(...share('DCGM_FI_DEV_POWER_USAGE', '100'), ...share('DCGM_FI_DEV_FB_USED', '7'))
  assert.deepEqual([gpu.powerW, gpu.memUsedMb, gpu.namespace, gpu.pod], [100, 7, 'ns-a,ns-b', 'a-1,b-0'])
})

test('an empty label is none, and the exporter is no workload', () => {
  for (const labels of [
    'container="",namespace="",pod=""',
    'container="nvidia-dcgm-exporter",namespace="gpu-operator",pod="nvidia-dcgm-exporter-wqqqn"',
  ]) {
    const { namespace, pod } = gpuOf(`DCGM_FI_DEV_GPU_UTIL{${labels}} 0`)
    assert.deepEqual([namespace, pod], [null, null], labels)
  }
  const named = gpuOf('DCGM_FI_DEV_GPU_UTIL{pod_namespace="serving",pod_name="m-0"} 0')
  assert.deepEqual([named.namespace, named.pod], ['serving', 'm-0'])
})

test('labels are read in either spelling, and what is no GPU is none', () => {
  const { gpus } = readDcgmPage(
    [
      `DCGM_FI_DEV_GPU_UTIL{gpu="3",uuid="${UUID}",hostname="node-a"} 5`,
      'DCGM_FI_DEV_GPU_UTIL{device="nvidia7"} 6',
      'DCGM_FI_DEV_NVSWITCH_TEMPERATURE_CURRENT{nvswitch="0"} 40',
      'DCGM_FI_DEV_GPU_UTIL{gpu="x"} 7',
      'DCGM_FI_DEV_GPU_UTIL{gpu="1024"} 8',
      'node_load1 3',
      '',
    ].join('\n'),
  )
  assert.deepEqual(
    gpus.map(({ hostname, reading }) => [hostname, reading.gpuIndex, reading.uuid, reading.utilization]),
    [
      [null, 7, null, 0.06],
      ['node-a', 3, UUID, 0.05],
    ],
  )
})

test('lines that cannot be read are reported, and cost nothing else', () => {
  const { gpus, faults } = readDcgmPage(
    `${pageOf('DCGM_FI_DEV_GPU_UTIL 5')}DCGM_FI_DEV_GPU_UTIL{gpu= 5\n${pageOf('DCGM_FI_DEV_FB_USED 6').trim()}`,
  )
  assert.deepEqual([gpus.length, gpus[0]!.reading.utilization, gpus[0]!.reading.memUsedMb], [1, 0.05, null])
  assert.match(faults[0]!, /^DCGM's page: Line 2 has labels that cannot be read/)
  assert.match(faults[1]!, /^DCGM's page: The page ends within line 3/)
})

const CAPTURES = '../shared/captures/dcgm'
const skip = existsSync(CAPTURES) ? false : 'no captures lie beside the repository'

function capture(name: string) {
  const { gpus, faults } = readDcgmPage(readFileSync(`${CAPTURES}/${name}`, 'utf8'))
  assert.deepEqual(faults, [])
  return gpus.map(({ hostname, reading: { dcgm, ...reading } }) => ({ hostname, ...reading, ...dcgm! }))
}

/** The figures of a captured GPU, in this order. */
function figuresOf(gpu: ReturnType<typeof capture>[number]) {
  const { name, utilization, memUsedMb, memTotalMb, powerW, energyJ, grEngineActive, pod } = gpu
  return [name, utilization, memUsedMb, memTotalMb, powerW, energyJ, grEngineActive, pod]
}

test('captured: one GPU without help lines, and the same with lower-case labels', { skip }, () => {
  const [gpu, ...others] = capture('t4-one-gpu-no-help-lines.prom')
  assert.deepEqual(others, [])
  assert.deepEqual(figuresOf(gpu!), ['Tesla T4', 0.91, 5120, 15_358, 68.244, 15_152_422.938, 0.156205, null])
  const [lower] = capture('handmade-lowercase-hostname-uuid.prom')
  assert.deepEqual(figuresOf(lower!), ['Tesla T4', 0.91, 5120, null, 68.244, 15_152_422.938, null, null])
  assert.deepEqual([lower!.hostname, lower!.uuid], ['node-a', 'GPU-00000000-0000-4000-8000-0000000000a1'])
})

test('captured: a complete page of an idle GPU', { skip }, () => {
  const [gpu, ...others] = capture('l4-complete-580.prom')
  assert.deepEqual(others, [])
  assert.deepEqual(figuresOf(gpu!), ['NVIDIA L4', 0, 0, 23_033, 16.365, 4742.776, 0, null])
})

test('captured: eight GPUs of which one has a pod', { skip }, () => {
  const gpus = capture('h100x8-pods-idle-sampled.prom')
  assert.deepEqual(
    gpus.map(({ gpuIndex, powerW }) => [gpuIndex, powerW]),
    [113.611, 68.347, 65.709, 67.316, 68.717, 65.742, 67.328, 66.997].map((powerW, i) => [i, powerW]),
  )
  for (const { name, utilization, memUsedMb, memTotalMb, energyJ } of gpus)
    assert.deepEqual(
      [name, utilization, memUsedMb, memTotalMb, energyJ],
      ['NVIDIA H100 80GB HBM3', 0, null, null, null],
    )
  assert.deepEqual(
    gpus.map(({ namespace, pod }) => (pod === null ? null : `${namespace}/${pod}`)),
    ['dynamo-workload/vllm-agg-0-vllmdecodeworker-s65j5', ...Array<null>(7).fill(null)],
  )
})

test('captured: a split GPU by an old exporter', { skip }, () => {
  const [gpu, ...others] = capture('a100-mig-2.4-no-modelname.prom')
  assert.deepEqual(others, [])
  assert.deepEqual(figuresOf(gpu!), [null, null, 4845, null, 409.692, 319_159.391, 0.99563, null])
  assert.deepEqual([gpu!.migProfile, gpu!.dramActive, gpu!.smActive], ['1g.5gb', 0.690789, null])
})

test('captured: an old page with empty labels and a blank', { skip }, () => {
  const [gpu, ...others] = capture('dcgm2-empty-pod-labels.prom')
  assert.deepEqual(others, [])
  assert.deepEqual(figuresOf(gpu!), [null, null, null, null, null, null, null, null])
  assert.equal(gpu!.uuid, 'GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52')
})

test('captured: two hosts by way of a Prometheus, which named the exporter where no pod was', { skip }, () => {
  const answer = JSON.parse(readFileSync(`${CAPTURES}/prometheus-api-util-h100x8.json`, 'utf8')) as {
    data: { result: { metric: Record<string, string>; value: [number, string] }[] }
  }
  const lines = answer.data.result.map(({ metric: { __name__: name, ...labels }, value }) => {
    const text = Object.entries(labels).map(([label, of]) => `${label}=${JSON.stringify(of)}`)
    return `${name}{${text.join(',')}} ${value[1]} ${Math.round(value[0] * 1000)}\n`
  })
  const { gpus, faults } = readDcgmPage(lines.join(''))
  assert.deepEqual([faults, gpus.length], [[], 16])
  assert.deepEqual(
    gpus.map(({ reading }) => [reading.gpuIndex, reading.utilization]),
    [...Array(16).keys()].map((i) => [i % 8, 0]),
  )
  assert.equal(new Set(gpus.map(({ hostname }) => hostname)).size, 2)
  const pods = gpus.flatMap(({ reading }) => reading.dcgm!.pod ?? [])
  assert.ok(
    pods.every((pod) => !pod.includes('dcgm-exporter')),
    pods.join(),
  )
})
