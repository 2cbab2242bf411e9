// Parses the output of nvidia-smi: `--query-gpu=… --format=csv` (a header with units, values with or without them,
// separated by a comma and a space, nothing quoted) and `-L`. Columns are found by name. Every notation of "unknown" is
// null and never 0. The table may have other lines before, between and after its rows (the driver's advisories, what a
// preloaded library prints): these are returned as `strays`; a row whose number of columns differs from the header's is
// left out and reported. Its timestamps are local time without a zone and are not used. Sources: `nvidia-smi
// --help-query-gpu`, and the output of drivers 590 to 595.

import { type GpuReading, GpuSourceError } from './gpu-source.ts'

/** A row by column name, without the header's units; null: unknown to nvidia-smi. */
export type SmiRow = Readonly<Record<string, string | null>>

export interface SmiTable {
  rows: SmiRow[]
  /** Rows that were left out, one line each. */
  faults: string[]
  /** Lines that are no rows, as they stand there. */
  strays: string[]
}

export interface SmiReadings {
  readings: GpuReading[]
  faults: string[]
  strays: string[]
  /** Indices of GPUs that are split by MIG; only `-L` lists their profiles. */
  splitGpus: number[]
}

/** Cells without a value, in lower case; so is any text in square brackets, as `[Not Supported]`. */
const ABSENT = new Set(['', 'n/a', 'not supported', 'no devices were found'])
const MAX_GPU_INDEX = 1023

/**
 * Parses a table; its header is the first line that has the column `required`, unless `columns` names them
 * (`--format=csv,noheader`).
 * @throws GpuSourceError when the text is not a table with the column `required`.
 */
export function parseSmiTable(text: string, required: string, columns?: readonly string[]): SmiTable {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '')
  const headerAt = columns === undefined ? lines.findIndex((line) => columnsOf(line).includes(required)) : -1
  const names = columns ?? columnsOf(lines[headerAt] ?? '')
  if (!names.includes(required)) {
    throw new GpuSourceError(
      `Cannot read the answer of nvidia-smi: it begins with ${quote(text)}, expected a header with "${required}"; run nvidia-smi by hand to see what it says`,
    )
  }
  const table: SmiTable = { rows: [], faults: [], strays: lines.slice(0, Math.max(0, headerAt)) }
  for (const line of lines.slice(headerAt + 1)) {
    const cells = line.split(', ')
    if (cells.length === names.length) {
      table.rows.push(Object.fromEntries(names.map((name, i) => [name, textOrNull(cells[i]!)])))
    } else if (isBrokenRow(cells, names.indexOf(required))) {
      table.faults.push(
        `nvidia-smi: the row ${quote(line)} has ${cells.length} columns, expected ${names.length}; left out`,
      )
    } else table.strays.push(line)
  }
  return table
}

function columnsOf(header: string): string[] {
  return header.split(', ').map((cell) => {
    // Its unit, as in `power.draw [W]`. By a pattern, a line of many brackets would take the square of its length.
    const unitAt = cell.endsWith(']') ? cell.indexOf('[') : -1
    return (unitAt === -1 ? cell : cell.slice(0, unitAt)).trim()
  })
}

/** Whether cells that are too many or too few are those of a GPU all the same: an advisory has neither. */
function isBrokenRow(cells: readonly string[], requiredAt: number): boolean {
  const hasNumber = cells.length > 1 && /^\d+$/.test((cells[requiredAt] ?? '').trim())
  return hasNumber || cells.some((cell) => /^(GPU|MIG)-[\da-f]{8}/i.test(cell.trim()))
}

/**
 * Parses the output of `--query-gpu`. Figures of columns that were not queried are null; so is energy, which nvidia-smi
 * does not count.
 * @throws GpuSourceError when the text is not a table of GPUs.
 */
export function parseNvidiaSmi(text: string, columns?: readonly string[]): SmiReadings {
  const { rows, faults, strays } = parseSmiTable(text, 'index', columns)
  const result: SmiReadings = { readings: [], faults, strays, splitGpus: [] }
  const seen = new Set<number>()
  for (const row of rows) {
    const gpuIndex = Number(row['index'] ?? Number.NaN)
    if (!(Number.isInteger(gpuIndex) && gpuIndex >= 0 && gpuIndex <= MAX_GPU_INDEX) || seen.has(gpuIndex)) {
      const expected = `a number from 0 to ${MAX_GPU_INDEX} that no other row has`
      faults.push(`nvidia-smi: a row has index ${quote(row['index'] ?? 'nothing')}, expected ${expected}; left out`)
      continue
    }
    seen.add(gpuIndex)
    const isSplit = row['mig.mode.current']?.toLowerCase() === 'enabled'
    if (isSplit) result.splitGpus.push(gpuIndex)
    result.readings.push(readingOf(row, gpuIndex, isSplit, faults))
  }
  return result
}

/** Profiles of the MIG instances in the output of `-L`, by GPU: `0` → `3g.40gb,1g.10gb`. */
export function parseMigProfiles(text: string): Map<number, string> {
  const profiles = new Map<number, string>()
  let gpuIndex: number | null = null
  for (const line of text.split(/\r?\n/)) {
    const gpu = /^GPU (\d+):/.exec(line)
    if (gpu !== null) gpuIndex = Number(gpu[1])
    const profile = /^\s+MIG (\S+)\s+Device\s+\d+:/.exec(line)?.[1]
    if (profile === undefined || gpuIndex === null) continue
    const others = profiles.get(gpuIndex)
    profiles.set(gpuIndex, others === undefined ? profile : `${others},${profile}`)
  }
  return profiles
}

function readingOf(row: SmiRow, gpuIndex: number, isSplit: boolean, faults: string[]): GpuReading {
  const figure = (column: string, unit: string, maximum: number): number | null => {
    const cell = row[column] ?? null
    if (cell === null) return null
    const [, digits, cellUnit = unit] = /^(\d+(?:\.\d+)?)(?: ?(\S+))?$/.exec(cell) ?? []
    const value = Number(digits ?? Number.NaN)
    if (cellUnit === unit && value <= maximum) return value
    const expected = `a number of ${unit} up to ${maximum}`
    faults.push(`GPU ${gpuIndex}: ${column} is ${quote(cell)}, expected ${expected}; taken as unknown`)
    return null
  }
  const percent = figure('utilization.gpu', '%', 100)
  return {
    gpuIndex,
    uuid: row['uuid'] ?? row['gpu_uuid'] ?? null,
    name: row['name'] ?? row['gpu_name'] ?? null,
    utilization: percent === null || isSplit ? null : percent / 100,
    memUsedMb: figure('memory.used', 'MiB', 1e9),
    memTotalMb: figure('memory.total', 'MiB', 1e9),
    powerW: figure('power.draw', 'W', 1e6),
    energyJ: null,
    migProfile: null,
    pricePerHourUsd: null,
  }
}

function textOrNull(cell: string): string | null {
  const text = cell.trim()
  return ABSENT.has(text.toLowerCase()) || /^\[.*\]$/.test(text) ? null : text
}

/** An excerpt of what nvidia-smi wrote, on one line. */
export function quote(text: string): string {
  const line = text.trim().replaceAll(/\s+/g, ' ')
  return JSON.stringify(line.length > 120 ? `${line.slice(0, 120)}…` : line)
}
