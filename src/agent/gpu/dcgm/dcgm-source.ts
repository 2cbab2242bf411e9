// GPU figures by a DCGM exporter, which many clusters run already: no access to driver or devices is needed, and it
// knows which pod has a GPU. It measures at an interval of its own (30 s unless configured) and repeats its figures
// meanwhile: see repeat-filter.ts.

import { fetchPage, PageError, shownUrl } from '../../exposition/fetch-page.ts'
import { ExpositionError } from '../../exposition/parse-exposition.ts'
import { type GpuReading, type GpuSource, GpuSourceError } from '../gpu-source.ts'
import { KnownGpus } from '../known-gpus.ts'
import { readDcgmPage } from './dcgm-page.ts'

export interface DcgmOptions {
  /** The exporter's page; that of this host's port 9400 when absent. */
  url?: URL
  /** This host's name: of a page with several hosts only its GPUs are read. */
  hostname?: string | undefined
  /** A reading succeeds or fails within this. */
  timeoutMs?: number
}

/** The port that the exporter takes unless it is configured. */
const DEFAULT_URL = 'http://127.0.0.1:9400/metrics'

export class DcgmSource implements GpuSource {
  readonly name = 'dcgm'
  faults: readonly string[] = []
  notices: readonly string[] = []
  readonly repeats = true
  readonly #url: URL
  readonly #hostname: string | undefined
  readonly #timeoutMs: number
  readonly #known = new KnownGpus()
  readonly #closing = new AbortController()
  #reading: Promise<GpuReading[]> | null = null

  constructor({ url = new URL(DEFAULT_URL), hostname, timeoutMs = 5_000 }: DcgmOptions = {}) {
    this.#url = url
    this.#hostname = hostname
    this.#timeoutMs = timeoutMs
  }

  read(): Promise<GpuReading[]> {
    this.#reading ??= this.#readAndReport().finally(() => {
      this.#reading = null
    })
    return this.#reading
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#reading?.catch(() => {})
  }

  async #readAndReport(): Promise<GpuReading[]> {
    try {
      return await this.#readOnce()
    } catch (error) {
      if (!(error instanceof PageError || error instanceof ExpositionError || error instanceof GpuSourceError)) {
        throw error
      }
      const message = `Cannot read GPUs by DCGM: ${error.message}${remedyFor(error)}`
      this.faults = [message]
      this.notices = []
      throw new GpuSourceError(message)
    }
  }

  async #readOnce(): Promise<GpuReading[]> {
    const options = { timeoutMs: this.#timeoutMs, signal: this.#closing.signal }
    const page = readDcgmPage(await fetchPage(this.#url, options))
    const own = this.#ofThisHost(page.gpus)
    const { readings, twice } = withoutTwins(own.map(({ reading }) => reading))
    if (readings.length === 0) {
      throw new GpuSourceError(
        `${shownUrl(this.#url)} has no series of a GPU (DCGM_FI_… with a label gpu); see that it is a DCGM exporter, and what it logs`,
      )
    }
    this.#known.add(readings)
    this.faults = [...page.faults, ...twice, ...this.#known.missingFrom(readings)]
    this.notices = this.#noticeOfHost(own.map(({ hostname }) => hostname))
    return readings
  }

  /** @throws GpuSourceError when the page has GPUs of several hosts, and none of this one. */
  #ofThisHost<T extends { hostname: string | null }>(gpus: readonly T[]): readonly T[] {
    const hosts = [...new Set(gpus.map(({ hostname }) => hostname))]
    if (hosts.length <= 1) return gpus
    const own = gpus.filter(({ hostname }) => hostname === this.#hostname)
    if (own.length > 0) return own
    const named = hosts.slice(0, 5).map((host) => host ?? 'a host without name')
    throw new GpuSourceError(
      `the page has GPUs of ${hosts.length} hosts (${named.join(', ')}) and none of ${this.#hostname ?? 'this one'}; set HOSTNAME to one of them`,
    )
  }

  #noticeOfHost([hostname = null]: readonly (string | null)[]): string[] {
    if (hostname === null || this.#hostname === undefined || hostname === this.#hostname) return []
    return [`DCGM's page is of host ${JSON.stringify(hostname)}; samples carry ${JSON.stringify(this.#hostname)}`]
  }
}

/** Two GPUs with one index would be one slot: the first is read. */
function withoutTwins(all: readonly GpuReading[]): { readings: GpuReading[]; twice: string[] } {
  const byIndex = new Map<number, GpuReading>()
  const twice: string[] = []
  for (const reading of all) {
    const first = byIndex.get(reading.gpuIndex)
    if (first === undefined) byIndex.set(reading.gpuIndex, reading)
    else
      twice.push(
        `GPU ${reading.gpuIndex}: DCGM's page has two, ${first.uuid} and ${reading.uuid}; the second is left out`,
      )
  }
  return { readings: [...byIndex.values()], twice }
}

function remedyFor(error: Error): string {
  if (!(error instanceof PageError)) return ''
  if (error.code === 'unreachable') return '; start dcgm-exporter, or give its address with --dcgm URL'
  return error.code === 'timeout' ? '; see what dcgm-exporter logs: it may wait for the driver' : ''
}
