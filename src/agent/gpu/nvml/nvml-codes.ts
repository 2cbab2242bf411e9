// What the return codes of NVML (nvmlReturn_t) mean for a reading: whose fault a code is, and what a person can do. The
// numbers are those of nvml.h, API 13; a code that is not named here spoils one figure only, and is named.

export const SUCCESS = 0
export const UNINITIALIZED = 1
export const NO_PERMISSION = 4
export const NOT_FOUND = 6
/** NVML's own "function not found"; here also for a symbol that an old library lacks. */
export const FUNCTION_NOT_FOUND = 13
/** The driver does not know this version of a structure. */
export const VERSION_MISMATCH = 25

/**
 * Whom a code concerns: `absent`: this GPU or driver does not tell that figure, nothing is wrong · `figure`: the figure
 * is null and the fault is named · `gpu`: nothing of this GPU can be trusted now · `session`: NVML has to be initialised
 * again · `driver`: no GPU can be read, and the library has to be loaded anew.
 */
export type Verdict = 'absent' | 'figure' | 'gpu' | 'session' | 'driver'

const VERDICTS: Readonly<Record<number, Verdict>> = {
  [UNINITIALIZED]: 'session',
  3: 'absent', // not supported
  [NO_PERMISSION]: 'absent',
  9: 'driver', // driver not loaded
  12: 'driver', // library not found
  [FUNCTION_NOT_FOUND]: 'absent',
  15: 'gpu', // GPU is lost
  16: 'gpu', // reset required
  18: 'driver', // library and driver are of different versions
  26: 'absent', // deprecated
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
  18: 'the loaded driver and its library are of different versions, as after an update; restart the machine',
  28: 'it is not there any more; look for Xid in dmesg',
  999: 'look for NVRM and Xid in dmesg; in a container that lost its devices, restart the container',
}

export function verdictOf(code: number): Verdict {
  return VERDICTS[code] ?? 'figure'
}

/** The failed call in words: `nvmlDeviceGetPowerUsage failed with 15, GPU is lost: it has fallen off the bus; …`. */
export function describeFailure(call: string, code: number, text: string | null): string {
  const remedy = REMEDIES[code]
  return `${call} failed with ${code}${text === null ? '' : `, ${text}`}${remedy === undefined ? '' : `: ${remedy}`}`
}
