// What one series of a DCGM exporter means: which figure its name stands for, which GPU (or which MIG instance of it)
// and which pod its labels name. Names and labels have changed over the years and are all accepted: DCGM's own ones and
// those of its field naming standard (2026), whose RATIO does not always mean 0 to 1. DCGM has numbers that mean
// "blank", "not found", "not supported" and "no permission": these are no figures.
// Sources: dcgm_fields.h and dcgm_structs.h of NVIDIA/DCGM, default-counters.csv and the renderer of dcgm-exporter.

import type { ExpositionSample } from '../../exposition/parse-exposition.ts'

/** `util`: per cent · `utilRatio`: by form · `fb…`: MiB · `power`: watts · `energy`: millijoules · others: 0 to 1. */
export type DcgmFigure =
  | 'util'
  | 'utilRatio'
  | 'fbUsed'
  | 'fbFree'
  | 'fbReserved'
  | 'fbTotal'
  | 'power'
  | 'powerInstant'
  | 'energy'
  | 'smActive'
  | 'dramActive'
  | 'grEngineActive'

export interface DcgmSeries {
  gpuIndex: number
  uuid: string | null
  name: string | null
  hostname: string | null
  /** The MIG instance; null: the whole GPU. */
  instance: { id: string; profile: string } | null
  /** The pod that the GPU is given to; null: none, or the exporter's own. */
  pod: { namespace: string; name: string } | null
  /** Null: a series of another figure, which still shows that the GPU is there. */
  figure: DcgmFigure | null
  /** Null: DCGM has none. */
  value: number | null
}

const FIGURES: ReadonlyMap<string, DcgmFigure> = new Map<string, DcgmFigure>([
  ['DCGM_FI_DEV_GPU_UTIL', 'util'],
  ['DCGM_FI_DEV_GPU_UTIL_RATIO', 'utilRatio'],
  ['DCGM_FI_DEV_FB_USED', 'fbUsed'],
  ['DCGM_FI_DEV_FB_FREE', 'fbFree'],
  ['DCGM_FI_DEV_FB_RESERVED', 'fbReserved'],
  ['DCGM_FI_DEV_FB_TOTAL', 'fbTotal'],
  ['DCGM_FI_DEV_POWER_USAGE', 'power'],
  ['DCGM_FI_DEV_BOARD_POWER_WATTS', 'power'],
  ['DCGM_FI_DEV_POWER_USAGE_INSTANT', 'powerInstant'],
  ['DCGM_FI_DEV_BOARD_POWER_RAW_WATTS', 'powerInstant'],
  ['DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION', 'energy'],
  ['DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total', 'energy'],
  ['DCGM_FI_PROF_SM_ACTIVE', 'smActive'],
  ['DCGM_FI_PROF_SM_UTIL_RATIO', 'smActive'],
  ['DCGM_FI_PROF_DRAM_ACTIVE', 'dramActive'],
  ['DCGM_FI_PROF_DRAM_UTIL_RATIO', 'dramActive'],
  ['DCGM_FI_PROF_GR_ENGINE_ACTIVE', 'grEngineActive'],
  ['DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO', 'grEngineActive'],
])

/** DCGM_INT32_BLANK, DCGM_FP64_BLANK: the blank and three more, each a reason why there is no figure. */
const BLANKS = [0x7fff_fff0, 2 ** 47]
/** DCGM_INT64_BLANK and its three, as far as a number is exact. */
const LONG_BLANK = 2 ** 63
const MAX_GPU_INDEX = 1023
/** The exporter reports its own pod for GPUs that no pod has, where a Prometheus has added its labels. */
const OWN_POD = /(?:^|-)dcgm-exporter(?:-|$)/

/** Whether a name is one of DCGM's: every series of them shows a GPU, whatever it measures. */
export function isDcgmName(name: string): boolean {
  return name.startsWith('DCGM_FI_')
}

/** Null: the series is not of a GPU (a switch, a CPU). */
export function readDcgmSeries({ name, labels, value, valueText }: ExpositionSample): DcgmSeries | null {
  const label = (...names: string[]) => names.map((one) => labels.get(one)).find((text) => text) ?? null
  const gpuIndex = Number(label('gpu') ?? /^nvidia(\d+)$/.exec(label('device') ?? '')?.[1] ?? Number.NaN)
  if (!(Number.isInteger(gpuIndex) && gpuIndex >= 0 && gpuIndex <= MAX_GPU_INDEX)) return null
  const instanceId = label('GPU_I_ID')
  const pod = label('pod', 'pod_name')
  return {
    gpuIndex,
    uuid: label('UUID', 'uuid', 'gpu_uuid'),
    name: label('modelName', 'model_name'),
    hostname: label('Hostname', 'hostname'),
    instance: instanceId === null ? null : { id: instanceId, profile: label('GPU_I_PROFILE') ?? 'unknown' },
    pod: pod === null || OWN_POD.test(pod) ? null : { namespace: label('namespace', 'pod_namespace') ?? '', name: pod },
    ...figureOf(name, value, valueText),
  }
}

/**
 * GPU_UTIL_RATIO has been printed in two units: as another name of GPU_UTIL, an integer of per cent, and as a float
 * from 0 to 1. The exporter prints floats with decimals: 1 is one per cent, 1.000000 is all the time.
 */
function figureOf(name: string, value: number, text: string): Pick<DcgmSeries, 'figure' | 'value'> {
  const figure = FIGURES.get(name) ?? null
  const known = Number.isNaN(value) || isBlank(value) ? null : value
  if (figure !== 'utilRatio') return { figure, value: known }
  const isRatio = text.includes('.') && value <= 1
  return { figure: 'util', value: known === null || !isRatio ? known : known * 100 }
}

function isBlank(value: number): boolean {
  return value === LONG_BLANK || BLANKS.some((blank) => value >= blank && value <= blank + 3)
}
