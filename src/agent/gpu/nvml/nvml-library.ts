// libnvidia-ml.so.1, the driver's own library, through koffi: one function for each call that a reading needs, by its
// versioned symbol, with results as they lie in memory on 64-bit machines (nvml.h, API 13; little-endian). A call answers
// with NVML's return code; a symbol that an old library lacks answers "function not found", as NVML itself does for what
// its driver lacks. All ones in a figure mean that it is not available. Only reading calls: nothing here changes a GPU's
// state (persistence mode, clocks), and no CUDA context is made. Calls block their thread: see nvml-process.ts.

import { constants } from 'node:os'
import type { LibraryHandle } from 'koffi'
import { GpuSourceError } from '../gpu-source.ts'
import { FUNCTION_NOT_FOUND, SUCCESS } from './nvml-codes.ts'

/** What the library answers to one call; the value is null where the code is not 0, or means "not available". */
export interface Answer<T> {
  call: string
  code: number
  value: T | null
}

/** A device (nvmlDevice_t): an address that only the library understands. */
export type Device = bigint

export interface Memory {
  usedBytes: number | null
  totalBytes: number | null
}

type OfDevice<T> = (device: Device) => Answer<T>

export interface NvmlLibrary {
  init(): Answer<never>
  shutdown(): Answer<never>
  /** The library's words for a code; null when it has none. */
  errorText(code: number): string | null
  /** GPUs as of `init`. */
  count(): Answer<number>
  device(index: number): Answer<Device>
  name: OfDevice<string>
  uuid: OfDevice<string>
  /** Per cent of the last sample period in which a kernel ran. */
  utilizationPercent: OfDevice<number>
  /** Used memory without what the driver reserves for itself. */
  memory: OfDevice<Memory>
  /** Of older drivers; used memory includes what the driver reserves. */
  memoryV1: OfDevice<Memory>
  powerMilliwatts: OfDevice<number>
  /** Since the driver was loaded. */
  energyMillijoules: OfDevice<number>
  /** 1: the GPU is split into instances. */
  migMode: OfDevice<number>
  migMaxCount: OfDevice<number>
  migDevice(device: Device, index: number): Answer<Device>
}

/** Kinds of C parameters. `out` is where the result goes, `second` takes one that nobody asks for. */
type Parameter = 'device' | 'index' | 'out' | 'second' | 'length'

const C_TYPES = { device: 'void *', index: 'uint32_t', out: 'void *', second: 'void *', length: 'uint32_t' } as const
/** NVML_DEVICE_NAME_V2_BUFFER_SIZE and NVML_DEVICE_UUID_V2_BUFFER_SIZE; no structure that is read here is larger. */
const OUT_BYTES = 96
/** nvmlMemory_v2_t says its version and size in its first field. */
const MEMORY_V2 = 0x0200_0000 | 40

/** @throws GpuSourceError when koffi is not installed or `path` cannot be loaded. */
export async function openNvmlLibrary(path: string): Promise<NvmlLibrary> {
  const koffi = await import('koffi').catch((error: Error) => {
    throw new GpuSourceError(
      `Cannot call NVML: the npm package koffi cannot be loaded (${firstLine(error)}); run npm install koffi, or use nvidia-smi`,
    )
  })
  try {
    return bind(koffi.load(path))
  } catch (error) {
    throw new GpuSourceError(
      `Cannot load NVML, "${path}": ${firstLine(error as Error)}; install the NVIDIA driver, in a container start it with its GPUs (--gpus all)`,
    )
  }
}

/**
 * Asks Linux to end this process when its parent does: one that hangs in the driver hears of nothing else, and a new
 * agent would start a second one beside it. Elsewhere, and without koffi, nothing happens.
 */
export async function dieWithParent(): Promise<void> {
  const PR_SET_PDEATHSIG = 1
  try {
    const koffi = await import('koffi')
    koffi.load(null).func('prctl', 'int', ['int', 'ulong'])(PR_SET_PDEATHSIG, constants.signals.SIGKILL)
  } catch {}
}

function bind(library: LibraryHandle): NvmlLibrary {
  const out = Buffer.alloc(OUT_BYTES)
  const second = Buffer.alloc(8)

  function call<T>(name: string, parameters: readonly Parameter[], decode: (bytes: Buffer) => T | null, version = 0) {
    const types = parameters.map((kind) => C_TYPES[kind])
    const native = optional(() => library.func(name, 'int', types))
    return (device: Device | null = null, index = 0): Answer<T> => {
      if (native === null) return { call: name, code: FUNCTION_NOT_FOUND, value: null }
      out.fill(0)
      out.writeUInt32LE(version)
      const given = { device, index, out, second, length: OUT_BYTES }
      const code: number = native(...parameters.map((kind) => given[kind]))
      return { call: name, code, value: code === SUCCESS ? decode(out) : null }
    }
  }
  const errorString = optional(() => library.func('nvmlErrorString', 'str', ['int']))
  const deviceAt = call('nvmlDeviceGetHandleByIndex_v2', ['index', 'out'], addressIn)
  return {
    init: call<never>('nvmlInit_v2', [], nothingIn),
    shutdown: call<never>('nvmlShutdown', [], nothingIn),
    errorText: (code) => errorString?.(code) ?? null,
    count: call('nvmlDeviceGetCount_v2', ['out'], figureIn),
    device: (index) => deviceAt(null, index),
    name: call('nvmlDeviceGetName', ['device', 'out', 'length'], textIn),
    uuid: call('nvmlDeviceGetUUID', ['device', 'out', 'length'], textIn),
    // nvmlUtilization_t {u32 gpu, u32 memory}
    utilizationPercent: call('nvmlDeviceGetUtilizationRates', ['device', 'out'], figureIn),
    // nvmlMemory_v2_t {u32 version, u64 total, reserved, free, used}
    memory: call('nvmlDeviceGetMemoryInfo_v2', ['device', 'out'], (bytes) => memoryIn(bytes, 8, 32), MEMORY_V2),
    // nvmlMemory_t {u64 total, free, used}
    memoryV1: call('nvmlDeviceGetMemoryInfo', ['device', 'out'], (bytes) => memoryIn(bytes, 0, 16)),
    powerMilliwatts: call('nvmlDeviceGetPowerUsage', ['device', 'out'], figureIn),
    energyMillijoules: call('nvmlDeviceGetTotalEnergyConsumption', ['device', 'out'], (bytes) =>
      longFigureIn(bytes, 0),
    ),
    migMode: call('nvmlDeviceGetMigMode', ['device', 'out', 'second'], figureIn),
    migMaxCount: call('nvmlDeviceGetMaxMigDeviceCount', ['device', 'out'], figureIn),
    migDevice: call('nvmlDeviceGetMigDeviceHandleByIndex', ['device', 'index', 'out'], addressIn),
  }
}

/** Null where the library has no such symbol. */
function optional<T>(find: () => T): T | null {
  try {
    return find()
  } catch {
    return null
  }
}

function nothingIn(): null {
  return null
}

function addressIn(bytes: Buffer): Device {
  return bytes.readBigUInt64LE(0)
}

function figureIn(bytes: Buffer): number | null {
  const figure = bytes.readUInt32LE(0)
  return figure === 0xffff_ffff ? null : figure
}

function longFigureIn(bytes: Buffer, offset: number): number | null {
  const figure = bytes.readBigUInt64LE(offset)
  return figure === 0xffff_ffff_ffff_ffffn ? null : Number(figure)
}

function memoryIn(bytes: Buffer, totalOffset: number, usedOffset: number): Memory {
  return { totalBytes: longFigureIn(bytes, totalOffset), usedBytes: longFigureIn(bytes, usedOffset) }
}

/** Null when it is empty. */
function textIn(bytes: Buffer): string | null {
  const end = bytes.indexOf(0)
  const text = bytes.toString('utf8', 0, end === -1 ? bytes.length : end).trim()
  return text === '' ? null : text
}

function firstLine(error: Error): string {
  return error.message.split('\n')[0]!.replace(/^Failed to load shared library: /, '')
}
