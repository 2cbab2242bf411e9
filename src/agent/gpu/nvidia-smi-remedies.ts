// What nvidia-smi's words and exit codes mean, and what to do. The same words have two weights: without rows they are
// why nothing was read; beside rows only those that name a broken GPU or driver are a fault, all others (advisories of
// the driver, of the dynamic linker, of a preloaded library) are notices. nvidia-smi has no list of its messages: these
// are known from public reports, the codes from its manual.

import { quote } from './nvidia-smi-csv.ts'

interface Remedy {
  text: RegExp
  /** The exit code that means the same; null: none does. */
  code: number | null
  remedy: string
  /** Concerns no figure: a notice where rows were read. */
  isHarmless?: true
}

const IN_CONTAINER = 'in a container start it with its GPUs (--gpus all)'

/** By text first, else by exit code; the first match counts, so the special stand before the general. */
const REMEDIES: readonly Remedy[] = [
  {
    text: /failed to properly shut ?down NVML/i,
    code: null,
    remedy: 'it came after the work was done',
    isHarmless: true,
  },
  {
    text: /cannot be preloaded/i,
    code: null,
    remedy: 'a library that LD_PRELOAD or /etc/ld.so.preload names is not there; take it out of there',
    isHarmless: true,
  },
  {
    text: /infoROM is corrupted/i,
    code: 14,
    remedy: 'the figures do not depend on the infoROM; see nvidia-smi -q, the GPU may be due for service',
    isHarmless: true,
  },
  {
    text: /communicate with the NVIDIA driver|driver not loaded/i,
    code: 9,
    remedy: `the NVIDIA driver is not loaded; load it (modprobe nvidia) or install it, ${IN_CONTAINER}`,
  },
  {
    text: /no devices (were )?found/i,
    code: 6,
    remedy: `the driver finds no GPU; look for NVRM in dmesg, ${IN_CONTAINER}`,
  },
  {
    text: /version mismatch/i,
    code: 18,
    remedy: 'the loaded driver and its library are of different versions, as after an update; restart the machine',
  },
  {
    text: /insufficient permissions/i,
    code: 4,
    remedy: 'this user may not open the devices; it needs read and write access to /dev/nvidia*',
  },
  { text: /GPU is lost/i, code: 15, remedy: 'a GPU fell off the bus; look for Xid in dmesg and restart the machine' },
  {
    text: /requires? (a )?reset|reset required/i,
    code: 16,
    remedy: 'a GPU needs a reset; stop what uses it and run nvidia-smi --gpu-reset, or restart the machine',
  },
  {
    text: /(determine|detect) the device handle/i,
    code: null,
    remedy: 'a GPU does not respond, it may have fallen off the bus; look for Xid in dmesg and restart the machine',
  },
  {
    text: /external power|power cables?/i,
    code: 8,
    remedy: 'the external power cables of a GPU are not attached properly',
  },
  {
    text: /initialize NVML: Unknown Error/i,
    code: 999,
    remedy:
      'a container that lost its devices says so (after systemctl daemon-reload on its host): restart the container, and give it --device /dev/nvidia* for it to stay; on the host itself look for NVRM and Xid in dmesg',
  },
  {
    text: /blocked by the operating system/i,
    code: 17,
    remedy:
      'the system denies access to the GPU: under WSL update Windows’ driver and WSL (wsl --update), in a container set no-cgroups = false in /etc/nvidia-container-runtime/config.toml, in a virtual machine pass the GPU through',
  },
  {
    text: /libnvidia-ml|GLIBC(XX)?_[\d.]+'? not found/i,
    code: 12,
    remedy: `a library of the NVIDIA driver is missing; install it, ${IN_CONTAINER}`,
  },
  {
    text: /initialize NVML: (Function Not Found|Argument version mismatch)/i,
    code: 13,
    remedy: 'nvidia-smi is newer than the library of the driver; install both from one version',
  },
  {
    text: /kernel .*interrupt|interrupt issue/i,
    code: 10,
    remedy: 'the kernel has a problem with an interrupt of a GPU; look for NVRM in dmesg and restart the machine',
  },
  {
    text: /initialize NVML: (Out of memory|Insufficient (memory|resources))/i,
    code: 20,
    remedy: 'the machine has no memory left for nvidia-smi; see what takes it',
  },
]

/** What to do; the general advice where neither text nor code is known. */
export function remedyFor(output: string, exitCode: number | null): string {
  return find(output, exitCode)?.remedy ?? 'run it by hand to see what it says'
}

/** Most lines that are named; further ones are counted. */
const MAX_LINES = 8

/** What came beside rows that were read, one line of text each. */
export interface SmiNoise {
  faults: string[]
  notices: string[]
}

/** Weighs what a run wrote beside its rows: `strays` of its output, its stderr, its exit code. */
export function weighNoise(strays: readonly string[], stderr: string, exitCode: number | null): SmiNoise {
  const noise: SmiNoise = { faults: [], notices: [] }
  const add = (message: string, remedy: Remedy | undefined): void => {
    const isFault = remedy !== undefined && remedy.isHarmless !== true
    noise[isFault ? 'faults' : 'notices'].push(`${message}; ${remedy?.remedy ?? 'the rows were read all the same'}`)
  }
  const complaints = stderr.split(/\r?\n/).filter((line) => line.trim() !== '')
  const lines = new Map<string, Remedy | undefined>([
    ...strays.map((line) => [`nvidia-smi: the line ${quote(line)} is no row, left out`, find(line, null)] as const),
    ...complaints.map((line) => [`nvidia-smi complained: ${quote(line)}`, find(line, null)] as const),
  ])
  // Faults first, so that none is among those that are only counted.
  const byWeight = [...lines].sort(([, a], [, b]) => weightOf(b) - weightOf(a))
  for (const [message, remedy] of byWeight.slice(0, MAX_LINES)) add(message, remedy)
  if (byWeight.length > MAX_LINES) {
    noise.notices.push(`nvidia-smi wrote ${byWeight.length - MAX_LINES} more lines that are no rows; run it by hand`)
  }
  if (exitCode !== 0) add(`nvidia-smi exited with ${exitCode}`, find('', exitCode))
  return noise
}

function weightOf(remedy: Remedy | undefined): number {
  return remedy === undefined || remedy.isHarmless === true ? 0 : 1
}

function find(text: string, exitCode: number | null): Remedy | undefined {
  const byText = REMEDIES.find((remedy) => remedy.text.test(text))
  return byText ?? REMEDIES.find(({ code }) => code !== null && code === exitCode)
}
