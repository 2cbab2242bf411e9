// One GPU's figures by NVML, call by call. Each call may fail by itself: what the GPU does not tell is null, a fault
// costs that figure and is named, a lost GPU is left out and named, and only what concerns the driver as a whole is thrown.

import { type GpuReading, GpuSourceError } from '../gpu-source.ts'
import { describeFailure, NOT_FOUND, SUCCESS, VERSION_MISMATCH, verdictOf } from './nvml-codes.ts'
import type { Answer, Device, Memory, NvmlLibrary } from './nvml-library.ts'

/** One GPU's part of a reading; null when nothing of it can be trusted now. */
export interface GpuPart {
  gpuIndex: number
  reading: GpuReading | null
  problems: string[]
}

/** NVML has lost its state and has to be initialised again before anything can be read. */
export class NvmlUninitialized extends GpuSourceError {
  override name = 'NvmlUninitialized'
}

/** Thrown within a GPU's part when the GPU as a whole has to be left out. */
class GpuUnusable extends Error {}

const MIB = 1024 * 1024

/**
 * Initialises NVML and returns how many GPUs there are.
 * @throws GpuSourceError when that fails, or there is none.
 */
export function openNvml(library: NvmlLibrary): number {
  mustSucceed(library, library.init(), 'Cannot initialise NVML')
  const count = mustSucceed(library, library.count(), 'Cannot count GPUs')
  if (count !== null && count > 0) return count
  throw new GpuSourceError(
    'NVML finds no GPU: see whether nvidia-smi -L lists any; in a container start it with its GPUs (--gpus all)',
  )
}

/**
 * Reads one GPU.
 * @throws NvmlUninitialized, and GpuSourceError when the driver as a whole has failed.
 */
export function readGpu(library: NvmlLibrary, gpuIndex: number): GpuPart {
  const problems: string[] = []
  const ask = <T>(answer: Answer<T>): T | null => toldBy(library, answer, gpuIndex, problems)
  try {
    const device = library.device(gpuIndex)
    // Without its device a GPU has no figures, whatever the reason.
    if (device.value === null) throw new GpuUnusable(failureOf(library, device, gpuIndex))
    return { gpuIndex, reading: figuresOf(library, device.value, gpuIndex, ask, problems), problems }
  } catch (error) {
    if (!(error instanceof GpuUnusable)) throw error
    return { gpuIndex, reading: null, problems: [...problems, `${error.message}; left out`] }
  }
}

type Ask = <T>(answer: Answer<T>) => T | null

function figuresOf(library: NvmlLibrary, device: Device, gpuIndex: number, ask: Ask, problems: string[]): GpuReading {
  const split = ask(library.migMode(device)) === 1
  // NVML does not support it on a split GPU; whatever an odd driver answers there is no figure of the whole.
  const percent = split ? null : ask(library.utilizationPercent(device))
  const memory = ask(memoryOf(library, device))
  const milliwatts = ask(library.powerMilliwatts(device))
  const millijoules = ask(library.energyMillijoules(device))
  if (percent !== null && percent > 100) {
    problems.push(`GPU ${gpuIndex}: the driver says ${percent} % utilization, expected 0 to 100; taken as unknown`)
  }
  return {
    gpuIndex,
    uuid: ask(library.uuid(device)),
    name: ask(library.name(device)),
    utilization: percent === null || percent > 100 ? null : percent / 100,
    memUsedMb: mebibytes(memory?.usedBytes),
    memTotalMb: mebibytes(memory?.totalBytes),
    powerW: milliwatts === null ? null : milliwatts / 1000,
    energyJ: millijoules === null ? null : millijoules / 1000,
    migProfile: split ? migProfilesOf(library, device, ask) : null,
    pricePerHourUsd: null,
  }
}

/** The newer call where driver and library have it: its used memory is what nvidia-smi shows. */
function memoryOf(library: NvmlLibrary, device: Device): Answer<Memory> {
  const answer = library.memory(device)
  const isMissing = verdictOf(answer.code) === 'absent' || answer.code === VERSION_MISMATCH
  return isMissing ? library.memoryV1(device) : answer
}

/** As `3g.40gb,1g.10gb`: an instance's name is the GPU's, then `MIG`, then its profile. Null when there are none. */
function migProfilesOf(library: NvmlLibrary, device: Device, ask: Ask): string | null {
  const profiles: string[] = []
  const most = ask(library.migMaxCount(device)) ?? 0
  for (let i = 0; i < most; i++) {
    const answer = library.migDevice(device, i)
    const instance = answer.code === NOT_FOUND ? null : ask(answer)
    const name = instance === null ? null : ask(library.name(instance))
    const profile = /\bMIG (\S+)$/.exec(name ?? '')?.[1]
    if (profile !== undefined) profiles.push(profile)
  }
  return profiles.length === 0 ? null : profiles.join(',')
}

/** The value of an answer, null where the GPU does not tell it or the call failed, which is then named in `problems`. */
function toldBy<T>(library: NvmlLibrary, answer: Answer<T>, gpuIndex: number, problems: string[]): T | null {
  if (answer.code === SUCCESS) return answer.value
  const verdict = verdictOf(answer.code)
  if (verdict === 'absent') return null
  const message = failureOf(library, answer, gpuIndex)
  if (verdict === 'gpu') throw new GpuUnusable(message)
  problems.push(message)
  return null
}

/** What failed, in words. @throws when it concerns more than this GPU. */
function failureOf(library: NvmlLibrary, answer: Answer<unknown>, gpuIndex: number): string {
  const verdict = verdictOf(answer.code)
  const message = `GPU ${gpuIndex}: ${describeFailure(answer.call, answer.code, library.errorText(answer.code))}`
  if (verdict === 'session') throw new NvmlUninitialized(`Cannot read ${message}`)
  if (verdict === 'driver') throw new GpuSourceError(`Cannot read ${message}`)
  return message
}

function mustSucceed<T>(library: NvmlLibrary, answer: Answer<T>, action: string): T | null {
  if (answer.code === SUCCESS) return answer.value
  const message = `${action}: ${describeFailure(answer.call, answer.code, library.errorText(answer.code))}`
  throw verdictOf(answer.code) === 'session' ? new NvmlUninitialized(message) : new GpuSourceError(message)
}

function mebibytes(bytes: number | null | undefined): number | null {
  return bytes === null || bytes === undefined ? null : Math.floor(bytes / MIB)
}
