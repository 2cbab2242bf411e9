// One GPU's figures by NVML, call by call, and what a return code means for them. Each call may fail on its own: a
// figure that the GPU does not support is null, a failure costs that figure and is reported, a lost GPU is left out and
// reported, and only what concerns the driver as a whole is thrown.

import { type GpuReading, GpuSourceError } from '../gpu-source.ts'
import {
  type CallResult,
  type Device,
  FUNCTION_NOT_FOUND,
  type Memory,
  NO_PERMISSION,
  NOT_FOUND,
  type NvmlLibrary,
  SUCCESS,
  UNINITIALIZED,
  VERSION_MISMATCH,
} from './nvml-library.ts'

/** What was read of one GPU; `reading` is null when none of it can be trusted now. */
export interface GpuResult {
  gpuIndex: number
  reading: GpuReading | null
  faults: string[]
  /** Processes that compute on it, where these were asked for and are known. */
  pids?: number[]
}

/** NVML has lost its state and has to be initialised again before anything can be read. */
export class NvmlUninitialized extends GpuSourceError {
  override name = 'NvmlUninitialized'
}

/** Thrown while one GPU is read when that GPU has to be left out. */
class GpuUnusable extends Error {}

/**
 * What a code concerns: `unsupported`: this GPU or driver lacks that figure, which is no fault · `figure`: the figure
 * is null and the fault is reported · `gpu`: nothing of this GPU can be trusted now · `session`: NVML has to be
 * initialised again · `driver`: no GPU can be read, and the library has to be loaded again.
 */
type Scope = 'unsupported' | 'figure' | 'gpu' | 'session' | 'driver'

/** By code; any other concerns its figure only. */
const SCOPES: Readonly<Record<number, Scope>> = {
  [UNINITIALIZED]: 'session',
  3: 'unsupported', // not supported
  [NO_PERMISSION]: 'unsupported',
  9: 'driver', // driver not loaded
  12: 'driver', // library not found
  [FUNCTION_NOT_FOUND]: 'unsupported',
  15: 'gpu', // GPU is lost
  16: 'gpu', // reset required
  18: 'driver', // library and driver are of different versions
  26: 'unsupported', // deprecated
  28: 'gpu', // GPU not found
}

const REMEDIES: Readonly<Record<number, string>> = {
  [NO_PERMISSION]: 'this user may not open the devices; it needs read and write access to /dev/nvidia*',
  8: 'its external power cables are not attached properly',
  9: 'the NVIDIA driver is not loaded; load it (modprobe nvidia) or install it, and see that nvidia-smi works',
  12: 'a library of the NVIDIA driver is missing; install the driver, in a container start it with its GPUs (--gpus all)',
  [FUNCTION_NOT_FOUND]: 'the library is too old, or not the one of the NVIDIA driver; update the driver',
  15: 'it has fallen off the bus; look for Xid in dmesg and restart the machine',
  16: 'it needs a reset; stop what uses it and run nvidia-smi --gpu-reset, or restart the machine',
  17: 'the system denies access to the GPU; under WSL update Windows’ driver and WSL (wsl --update), in a virtual machine pass the GPU through',
  18: 'the loaded driver and its library are of different versions, as after an update; restart the machine',
  28: 'it is not there any more; look for Xid in dmesg',
  999: 'look for NVRM and Xid in dmesg; in a container that lost its devices, restart the container',
}

const MIB = 1024 * 1024

/**
 * Initialises NVML and returns the number of GPUs.
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
 * Reads one GPU, with its processes where asked for: the driver takes longer for these than for a figure.
 * @throws NvmlUninitialized, and GpuSourceError when the driver as a whole has failed.
 */
export function readGpu(library: NvmlLibrary, gpuIndex: number, withProcesses = false): GpuResult {
  const faults: string[] = []
  const unwrap: Unwrap = (result) => unwrapResult(library, result, gpuIndex, faults)
  try {
    const device = library.device(gpuIndex)
    // Without its device a GPU has no figures, whatever the reason.
    if (device.value === null) throw new GpuUnusable(failureText(library, device, gpuIndex))
    const reading = figuresOf(library, device.value, gpuIndex, unwrap, faults)
    // What fails here costs no figure: which GPUs an engine has is then not known, which is reported there.
    const pids = withProcesses ? library.computePids(device.value).value : null
    return { gpuIndex, reading, faults, ...(pids === null ? {} : { pids }) }
  } catch (error) {
    if (!(error instanceof GpuUnusable)) throw error
    return { gpuIndex, reading: null, faults: [...faults, `${error.message}; left out`] }
  }
}

type Unwrap = <T>(result: CallResult<T>) => T | null

function figuresOf(
  library: NvmlLibrary,
  device: Device,
  gpuIndex: number,
  unwrap: Unwrap,
  faults: string[],
): GpuReading {
  const isSplit = unwrap(library.migMode(device)) === 1
  // NVML does not support it on a split GPU; what a driver returns there all the same is no figure of the whole GPU.
  const percent = isSplit ? null : unwrap(library.utilizationPercent(device))
  const memory = unwrap(memoryOf(library, device))
  const milliwatts = unwrap(library.powerMilliwatts(device))
  const millijoules = unwrap(library.energyMillijoules(device))
  if (percent !== null && percent > 100) {
    faults.push(`GPU ${gpuIndex}: the driver says ${percent} % utilization, expected 0 to 100; taken as unknown`)
  }
  return {
    gpuIndex,
    uuid: unwrap(library.uuid(device)),
    name: unwrap(library.name(device)),
    utilization: percent === null || percent > 100 ? null : percent / 100,
    memUsedMb: mebibytes(memory?.usedBytes),
    memTotalMb: mebibytes(memory?.totalBytes),
    powerW: milliwatts === null ? null : milliwatts / 1000,
    energyJ: millijoules === null ? null : millijoules / 1000,
    migProfile: isSplit ? migProfilesOf(library, device, unwrap) : null,
    pricePerHourUsd: null,
  }
}

/** By the newer call where driver and library have it: its used memory is what nvidia-smi shows. */
function memoryOf(library: NvmlLibrary, device: Device): CallResult<Memory> {
  const result = library.memory(device)
  const isMissing = scopeOf(result.code) === 'unsupported' || result.code === VERSION_MISMATCH
  return isMissing ? library.memoryV1(device) : result
}

/**
 * For example `3g.40gb,1g.10gb`: an instance's name is the GPU's, then `MIG`, then its profile. Null if there is none.
 */
function migProfilesOf(library: NvmlLibrary, device: Device, unwrap: Unwrap): string | null {
  const profiles: string[] = []
  const maxCount = unwrap(library.migMaxCount(device)) ?? 0
  for (let i = 0; i < maxCount; i++) {
    const result = library.migDevice(device, i)
    const instance = result.code === NOT_FOUND ? null : unwrap(result)
    const name = instance === null ? null : unwrap(library.name(instance))
    const profile = /\bMIG (\S+)$/.exec(name ?? '')?.[1]
    if (profile !== undefined) profiles.push(profile)
  }
  return profiles.length === 0 ? null : profiles.join(',')
}

/** The value of a call; null where the GPU does not support it or the call failed, which is then added to `faults`. */
function unwrapResult<T>(library: NvmlLibrary, result: CallResult<T>, gpuIndex: number, faults: string[]): T | null {
  if (result.code === SUCCESS) return result.value
  const scope = scopeOf(result.code)
  if (scope === 'unsupported') return null
  const message = failureText(library, result, gpuIndex)
  if (scope === 'gpu') throw new GpuUnusable(message)
  faults.push(message)
  return null
}

/** Describes a failed call of a GPU. @throws when it concerns more than this GPU. */
function failureText(library: NvmlLibrary, result: CallResult<unknown>, gpuIndex: number): string {
  const scope = scopeOf(result.code)
  const message = `GPU ${gpuIndex}: ${describeFailure(library, result)}`
  if (scope === 'session') throw new NvmlUninitialized(`Cannot read ${message}`)
  if (scope === 'driver') throw new GpuSourceError(`Cannot read ${message}`)
  return message
}

function mustSucceed<T>(library: NvmlLibrary, result: CallResult<T>, action: string): T | null {
  if (result.code === SUCCESS) return result.value
  const message = `${action}: ${describeFailure(library, result)}`
  throw scopeOf(result.code) === 'session' ? new NvmlUninitialized(message) : new GpuSourceError(message)
}

/** For example `nvmlDeviceGetPowerUsage failed with 15, GPU is lost: it has fallen off the bus; …`. */
function describeFailure(library: NvmlLibrary, { call, code }: CallResult<unknown>): string {
  const text = library.errorText(code)
  const remedy = REMEDIES[code]
  return `${call} failed with ${code}${text === null ? '' : `, ${text}`}${remedy === undefined ? '' : `: ${remedy}`}`
}

function scopeOf(code: number): Scope {
  return SCOPES[code] ?? 'figure'
}

function mebibytes(bytes: number | null | undefined): number | null {
  return bytes === null || bytes === undefined ? null : Math.floor(bytes / MIB)
}
