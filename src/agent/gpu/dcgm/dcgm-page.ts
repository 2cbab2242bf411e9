// A DCGM exporter's page as readings, one a GPU. A page may show a figure of one GPU many times: once for each pod that
// shares it, and once for each MIG instance, board power and energy included (they are the board's, and repeat). So
// repetitions of a figure are one figure, of which the largest is taken, and nothing is added up but the memory of MIG
// instances, which is theirs. What an instance does is no figure of its GPU.

import { type ExpositionSummary, parseExposition } from '../../exposition/parse-exposition.ts'
import type { GpuReading } from '../gpu-source.ts'
import { type DcgmFigure, type DcgmSeries, isDcgmName, readDcgmSeries } from './dcgm-series.ts'

export interface DcgmGpu {
  /** As the exporter names it; null: it names none. */
  hostname: string | null
  reading: GpuReading
}

export interface DcgmPage {
  /** By host name and index. */
  gpus: DcgmGpu[]
  /** What is wrong with the page or its figures, one line each. */
  faults: string[]
}

interface Collected {
  series: DcgmSeries
  board: Map<DcgmFigure, number>
  /** Figures of each MIG instance, by its id. */
  instances: Map<string, { profile: string; figures: Map<DcgmFigure, number> }>
  pods: Map<string, { namespace: string; name: string }>
}

/** More pods on one GPU are not listed. */
const MAX_PODS = 64
/** A share of time may be this much above 1 by rounding. */
const ROUNDING = 0.05

/** @throws ExpositionError when the page exceeds a limit. */
export function readDcgmPage(text: string): DcgmPage {
  const gpus = new Map<string, Collected>()
  const summary = parseExposition(text, isDcgmName, (sample) => {
    const series = readDcgmSeries(sample)
    if (series !== null) collect(gpus, series)
  })
  const faults = faultsOf(summary)
  const read = [...gpus.values()].map((gpu) => ({ hostname: gpu.series.hostname, reading: readingOf(gpu, faults) }))
  const order = (a: DcgmGpu, b: DcgmGpu) =>
    (a.hostname ?? '').localeCompare(b.hostname ?? '') || a.reading.gpuIndex - b.reading.gpuIndex
  return { gpus: read.sort(order), faults }
}

function faultsOf({ faults, malformed }: ExpositionSummary): string[] {
  const more = malformed > faults.length ? [`DCGM's page has ${malformed} lines that cannot be read`] : []
  return [...faults.map((fault) => `DCGM's page: ${fault}`), ...more]
}

/** By UUID: on a page of several hosts an index occurs once a host. */
function collect(gpus: Map<string, Collected>, series: DcgmSeries): void {
  const key = series.uuid ?? `${series.hostname ?? ''} ${series.gpuIndex}`
  let gpu = gpus.get(key)
  if (gpu === undefined) {
    gpu = { series, board: new Map(), instances: new Map(), pods: new Map() }
    gpus.set(key, gpu)
  }
  gpu.series.name ??= series.name
  const { instance, pod, figure, value } = series
  if (pod !== null) gpu.pods.set(`${pod.namespace}/${pod.name}`, pod)
  let figures = gpu.board
  if (instance !== null) {
    const known = gpu.instances.get(instance.id) ?? { profile: instance.profile, figures: new Map() }
    gpu.instances.set(instance.id, known)
    figures = known.figures
  }
  if (figure !== null && value !== null) figures.set(figure, Math.max(value, figures.get(figure) ?? value))
}

function readingOf({ series, board, instances, pods }: Collected, faults: string[]): GpuReading {
  const { gpuIndex, uuid, name } = series
  const isSplit = instances.size > 0
  const within = (what: string, value: number | null, maximum: number) => {
    if (value === null || (value >= 0 && value <= maximum)) return value
    faults.push(`GPU ${gpuIndex}: DCGM's ${what} is ${value}, expected 0 to ${maximum}; taken as unknown`)
    return null
  }
  const share = (what: string, figure: DcgmFigure) => {
    const value = board.get(figure) ?? null
    return value !== null && value > 1 && value <= 1 + ROUNDING ? 1 : within(what, value, 1)
  }
  /** The board's own, or what each of its instances repeats. */
  const ofBoard = (figure: DcgmFigure) => board.get(figure) ?? largest(instances, figure)
  const percent = isSplit ? null : within('utilization', board.get('util') ?? null, 100)
  const millijoules = within('energy', ofBoard('energy'), 1e18)
  return {
    gpuIndex,
    uuid: bounded(uuid),
    name: bounded(name),
    utilization: percent === null ? null : percent / 100,
    memUsedMb: within('used memory', board.get('fbUsed') ?? sum(instances, 'fbUsed'), 1e9),
    memTotalMb: within('total memory', board.get('fbTotal') ?? totalOf(board), 1e9),
    powerW: within('power', ofBoard('power') ?? ofBoard('powerInstant'), 1e6),
    energyJ: millijoules === null ? null : millijoules / 1000,
    migProfile: isSplit ? profilesOf(instances) : null,
    pricePerHourUsd: null,
    dcgm: {
      smActive: share('SM activity', 'smActive'),
      dramActive: share('DRAM activity', 'dramActive'),
      grEngineActive: share('engine activity', 'grEngineActive'),
      ...workloadOf(pods),
    },
  }
}

/** Used memory is without what the driver reserves, so that the total is known only where all three parts are. */
function totalOf(board: ReadonlyMap<DcgmFigure, number>): number | null {
  const parts = (['fbUsed', 'fbFree', 'fbReserved'] as const).map((figure) => board.get(figure))
  return parts.every((part) => part !== undefined) ? parts.reduce((total, part) => total + part, 0) : null
}

function largest(instances: Collected['instances'], figure: DcgmFigure): number | null {
  const values = valuesOf(instances, figure)
  return values.length === 0 ? null : values.reduce((most, value) => Math.max(most, value))
}

/** Null unless each instance has it: of a part the whole is not known. */
function sum(instances: Collected['instances'], figure: DcgmFigure): number | null {
  const values = valuesOf(instances, figure)
  return values.length === 0 || values.length < instances.size ? null : values.reduce((total, value) => total + value)
}

function valuesOf(instances: Collected['instances'], figure: DcgmFigure): number[] {
  return [...instances.values()].flatMap(({ figures }) => figures.get(figure) ?? [])
}

/** For example `3g.40gb,1g.10gb`, by the instances' ids. */
function profilesOf(instances: Collected['instances']): string | null {
  const byId = [...instances].toSorted(([a], [b]) => Number(a) - Number(b) || a.localeCompare(b))
  return bounded(byId.map(([, { profile }]) => profile).join(','))
}

function workloadOf(pods: Collected['pods']): { namespace: string | null; pod: string | null } {
  if (pods.size === 0) return { namespace: null, pod: null }
  const listed = [...pods.entries()].toSorted(([a], [b]) => a.localeCompare(b)).slice(0, MAX_PODS)
  const namespaces = listed.map(([, { namespace }]) => namespace).join(',')
  return { namespace: namespaces === '' ? null : namespaces, pod: listed.map(([, { name }]) => name).join(',') }
}

/** As an event allows it: a longer text would cost the whole event. */
function bounded(text: string | null): string | null {
  return text === null ? null : text.slice(0, 256)
}
