// What nvidia-smi prints, read: fixtures of every kind, and real captures where they lie beside the repository, against
// the table of what is in them.

import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import type { GpuReading } from '../../../src/agent/gpu/gpu-source.ts'
import { parseMigProfiles, parseNvidiaSmi, parseSmiTable, type SmiRow } from '../../../src/agent/gpu/nvidia-smi-csv.ts'

const fixture = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8')

const NOTHING: GpuReading = {
  gpuIndex: 0,
  uuid: null,
  name: null,
  utilization: null,
  memUsedMb: null,
  memTotalMb: null,
  powerW: null,
  energyJ: null,
  migProfile: null,
  pricePerHourUsd: null,
}
const L40S = [
  {
    ...NOTHING,
    uuid: 'GPU-5a0e1c11-0000-4000-8000-000000000001',
    name: 'NVIDIA L40S',
    utilization: 0.83,
    memUsedMb: 30_211,
    memTotalMb: 46_068,
    powerW: 287.4,
  },
  {
    ...NOTHING,
    gpuIndex: 1,
    uuid: 'GPU-5a0e1c11-0000-4000-8000-000000000002',
    name: 'NVIDIA L40S',
    utilization: 0,
    memUsedMb: 1,
    memTotalMb: 46_068,
    powerW: 33.02,
  },
]

test('values are read by the names of their columns, with units and without, with a header and without', () => {
  const whole = { readings: L40S, faults: [], strays: [], splitGpus: [] }
  assert.deepEqual(parseNvidiaSmi(fixture('two-gpus.csv')), whole)
  assert.deepEqual(parseNvidiaSmi(fixture('two-gpus.csv').replaceAll('\n', '\r\n')), whole)
  const columns = [
    'index',
    'uuid',
    'name',
    'utilization.gpu',
    'memory.used',
    'memory.total',
    'power.draw',
    'pci.bus_id',
    'mig.mode.current',
  ]
  assert.deepEqual(parseNvidiaSmi(fixture('two-gpus.noheader-nounits.csv'), columns), whole)
  const [old] = parseNvidiaSmi(fixture('old-names.csv')).readings
  assert.deepEqual(
    [old?.uuid, old?.name, old?.utilization, old?.powerW],
    ['GPU-5a0e1c11-0000-4000-8000-000000000003', 'Tesla K80', 0.12, 61.17],
  )
})

test('every way of saying that something is not known is null, and nothing is wrong', () => {
  const { readings, faults } = parseNvidiaSmi(fixture('absent.csv'))
  assert.deepEqual(
    readings,
    [0, 1, 2, 3].map((gpuIndex) => ({ ...NOTHING, gpuIndex, name: gpuIndex === 3 ? 'Some GPU' : null })),
  )
  assert.deepEqual(faults, [])
})

test('a split GPU has no utilization; its profiles are in the list', () => {
  const { readings, splitGpus } = parseNvidiaSmi(fixture('split.csv'))
  assert.deepEqual(
    readings.map(({ utilization, powerW }) => [utilization, powerW]),
    [
      [0.97, 310.11],
      [null, 255.76],
      [null, 60.02],
    ],
  )
  assert.deepEqual(splitGpus, [1, 2])
  assert.deepEqual([...parseMigProfiles(fixture('split.L.txt'))], [[1, '4g.40gb,1g.10gb+me']])
})

test('rows that cannot be right are left out and named, figures are unknown and named, the rest is kept', () => {
  const { readings, faults, strays } = parseNvidiaSmi(fixture('odd-rows.csv'))
  const figures = { utilization: 0.05, memUsedMb: 1, memTotalMb: 10, powerW: 20 }
  assert.deepEqual(readings, [
    { ...NOTHING, gpuIndex: 1, uuid: 'GPU-b', name: 'Good', ...figures },
    { ...NOTHING, gpuIndex: 2, uuid: 'GPU-e', name: 'Odd figures' },
  ])
  const expected = [
    /^nvidia-smi: the row "0, GPU-a, GPU with, a comma, .*" has 8 columns, expected 7; left out$/,
    /^nvidia-smi: a row has index "1", expected a number from 0 to 1023 that no other row has; left out$/,
    /^nvidia-smi: a row has index "-1"/,
    /^nvidia-smi: a row has index "nothing"/,
    /^GPU 2: utilization.gpu is "130 %", expected a number of % up to 100; taken as unknown$/,
    /^GPU 2: memory.used is "1 GiB", expected a number of MiB/,
    /^GPU 2: memory.total is "lots"/,
    /^GPU 2: power.draw is "-5 W"/,
  ]
  assert.deepEqual(strays, ['WARNING: infoROM is corrupted at gpu 0000:17:00.0'])
  assert.equal(faults.length, expected.length, faults.join('\n'))
  for (const [i, pattern] of expected.entries()) assert.match(faults[i]!, pattern)
})

test('lines before, between and after the rows cost no GPU, wherever they stand', () => {
  const [header, ...rows] = fixture('two-gpus.csv').trim().split('\n') as [string, ...string[]]
  const noise = ['WARNING: infoROM is corrupted at gpu 0000:B3:00.0', '[HAMI-core Msg(7:8:libvgpu.c:837)]: Init']
  const text = [noise[0], header, rows[0], noise[1], rows[1], noise[1]].join('\n')
  assert.deepEqual(parseNvidiaSmi(text), {
    readings: L40S,
    faults: [],
    strays: [noise[0], noise[1], noise[1]],
    splitGpus: [],
  })
})

const seed = Number(process.env['FAST_CHECK_SEED'] ?? Date.now() % 2 ** 31)

test('10,000 mutated outputs: readings or a GpuSourceError each, and each line of the table has an outcome', (t) => {
  t.diagnostic(`FAST_CHECK_SEED=${seed}`)
  const texts = ['two-gpus.csv', 'split.csv', 'odd-rows.csv', 'absent.csv', 'old-names.csv', 'split.L.txt'].map(fixture)
  const edit = fc.record({ at: fc.nat(2000), length: fc.nat(40), text: fc.string({ unit: 'binary', maxLength: 30 }) })
  fc.assert(
    fc.property(fc.constantFrom(...texts), fc.array(edit, { maxLength: 6 }), (start, edits) => {
      const text = edits.reduce((now, { at, length, text: put }) => {
        const from = at % (now.length + 1)
        return now.slice(0, from) + put + now.slice(from + length)
      }, start)
      try {
        const { readings, faults, strays } = parseNvidiaSmi(text)
        const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '').length
        const named = readings.length + faults.length + strays.length
        assert.ok(named >= lines - 1, `${named} of ${lines}: ${JSON.stringify(text)}`)
        for (const { gpuIndex, utilization, powerW, memUsedMb, memTotalMb } of readings) {
          assert.ok(Number.isInteger(gpuIndex) && gpuIndex >= 0 && gpuIndex < 1024)
          assert.ok(utilization === null || (utilization >= 0 && utilization <= 1))
          for (const figure of [powerW, memUsedMb, memTotalMb]) assert.ok(figure === null || figure >= 0)
        }
      } catch (error) {
        if ((error as Error).name !== 'GpuSourceError') throw error
      }
      for (const profiles of parseMigProfiles(text).values()) assert.ok(profiles.length > 0)
    }),
    { numRuns: 10_000, seed },
  )
})

test('a line of 200,000 signs takes no time to speak of', () => {
  for (const sign of ['[', ']', ', ', '[]', ' ', '"']) {
    const beganMs = performance.now()
    assert.throws(() => parseNvidiaSmi(sign.repeat(200_000)), { name: 'GpuSourceError' })
    assert.ok(performance.now() - beganMs < 5000, `${performance.now() - beganMs} ms: ${sign}`)
  }
})

test('what is no table of GPUs is an error, never no GPUs', () => {
  for (const text of [
    '',
    '\n',
    'No devices were found\n',
    fixture('monitor.txt'),
    fixture('split.L.txt'),
    '<html>',
    'x'.repeat(9000),
  ]) {
    assert.throws(
      () => parseNvidiaSmi(text),
      (error: Error) => {
        assert.equal(error.name, 'GpuSourceError')
        assert.match(
          error.message,
          /^Cannot read the answer of nvidia-smi: it begins with ".*", expected a header with "index"; run/,
        )
        return error.message.length < 400
      },
      text.slice(0, 40),
    )
  }
})

const CAPTURES = new URL('../../../../shared/captures/', import.meta.url).pathname
const skip = !existsSync(CAPTURES) && 'the captures are not beside the repository'

test('every capture of a query gives what the index of the captures says', { skip }, () => {
  const rows = readFileSync(`${CAPTURES}INDEX.md`, 'utf8')
    .split('\n')
    .filter((line) => /^\| \S+\.(idle|load) \|/.test(line))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )
  assert.equal(rows.length, 10)
  for (const [stem, name, , driver, util, memUtil, memory, watts, celsius, mig, pstate] of rows as string[][]) {
    const [used, total, reserved] = memory!.match(/\d+/g)!
    const [draw, average, instant, limit] = watts!.split(' / ')
    for (const kind of ['full', 'cut-units', 'cut-noheader-nounits']) {
      const at = `${stem}.${kind}.csv`
      const text = readFileSync(`${CAPTURES}nvidia-smi/${at}`, 'utf8')
      const columns = kind === 'cut-noheader-nounits' ? CUT_COLUMNS : undefined
      const isSplit = mig === 'Enabled'
      assert.deepEqual(
        parseNvidiaSmi(text, columns),
        {
          readings: [
            {
              ...NOTHING,
              uuid: 'GPU-00000000-0000-0000-0000-000000000000',
              name,
              utilization: numberOrNull(util!),
              memUsedMb: Number(used),
              memTotalMb: Number(total),
              powerW: Number(draw),
            },
          ],
          faults: [],
          strays: [],
          splitGpus: isSplit ? [0] : [],
        },
        at,
      )
      const table = parseSmiTable(text, 'index', columns)
      assert.deepEqual([table.rows.length, table.faults], [1, []], at)
      const [row] = table.rows as [SmiRow]
      const others = [row['driver_version'], row['mig.mode.current'], row['pstate']]
      assert.deepEqual(others, [driver, textOrNull(mig!), textOrNull(pstate!)], at)
      const percent = figureOf(row, 'utilization.memory')
      assert.equal(percent === null ? null : percent / 100, numberOrNull(memUtil!), at)
      assert.deepEqual(
        ['memory.reserved', 'power.draw.average', 'power.draw.instant', 'power.limit', 'temperature.gpu'].map(
          (column) => figureOf(row, column),
        ),
        [reserved, average, instant, limit, celsius].map((one) => numberOrNull(one!)),
        at,
      )
    }
  }
})

test('every other capture gives what the notes of the index say', { skip }, () => {
  const read = (name: string) => readFileSync(`${CAPTURES}nvidia-smi/${name}`, 'utf8')
  const lists = Object.fromEntries(
    globSync(`${CAPTURES}nvidia-smi/*.L.txt`).map((path) => [
      basename(path),
      [...parseMigProfiles(readFileSync(path, 'utf8'))],
    ]),
  )
  assert.deepEqual(lists, {
    'h100-linux-590.L.txt': [],
    'h100mig-linux-590.L.txt': [[0, '3g.40gb,2g.20gb,1g.10gb,1g.10gb']],
    'rtx2080s-linux-595.L.txt': [],
    'rtx2080s-windows-591.L.txt': [],
    'rtx4080s-linux-595.L.txt': [],
  })
  const processes = (name: string) =>
    parseSmiTable(read(`${name}.compute-apps.csv`), 'pid').rows.map((row) => figureOf(row, 'used_gpu_memory'))
  assert.deepEqual(processes('h100-linux-590.load').sort(), [1542, 15_690, 2566])
  assert.deepEqual(processes('h100mig-linux-590.load').sort(), [1272, 2296, 7484])
  assert.deepEqual(processes('rtx2080s-linux-595.load'), [370, 230])
  assert.deepEqual(processes('rtx4080s-linux-595.idle'), [25])
  assert.deepEqual(processes('rtx4080s-linux-595.load'), [25, 503, 360])
  for (const name of ['rtx2080s-windows-591.idle', 'rtx2080s-windows-591.load'])
    assert.deepEqual(new Set(processes(name)), new Set([null]))
  assert.deepEqual(
    parseNvidiaSmi(read('two-gpu-example-3090.csv')).readings.map((one) => [
      one.utilization,
      one.memUsedMb,
      one.memTotalMb,
      one.uuid,
      one.powerW,
    ]),
    [
      [0.98, 22_000, 24_576, null, null],
      [0.45, 8_000, 24_576, null, null],
    ],
  )
  const noTable = globSync(`${CAPTURES}nvidia-smi/{err-*,*.pmon,*.table}*.txt`)
  assert.equal(noTable.length, 10)
  for (const path of noTable) {
    assert.throws(() => parseNvidiaSmi(readFileSync(path, 'utf8')), { name: 'GpuSourceError' }, path)
  }
})

const CUT_COLUMNS =
  'index,uuid,name,pci.bus_id,driver_version,utilization.gpu,utilization.memory,memory.used,memory.total,memory.reserved,power.draw,power.draw.average,power.draw.instant,power.limit,temperature.gpu,mig.mode.current,pstate'.split(
    ',',
  )

function figureOf(row: SmiRow, column: string): number | null {
  const cell = row[column] ?? null
  return cell === null ? null : Number.parseFloat(cell)
}

function textOrNull(cell: string): string | null {
  return cell === 'null' ? null : cell
}

function numberOrNull(cell: string): number | null {
  return cell === 'null' ? null : Number(cell)
}
