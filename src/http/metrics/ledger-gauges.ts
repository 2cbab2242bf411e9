// The ledger's last full hour as gauges: what a million tokens cost, what each model cost, what was idle; and the same
// under OpenCost's names for inference costs, so that its dashboards show ours. The store is read at most every 15 s,
// and a scrape waits for it a second at most: figures of a minute ago are better than a scrape that fails. OpenCost's
// names and labels: pkg/inferencecost/exporter.go and docs/inference-cost-tracking.md of opencost/opencost, 1.121 (pull
// request 3845). Its cost_basis `allocation` includes idle, as our fully loaded does; `usage` is our busy.

import { Gauge, type Registry } from 'prom-client'
import { floorTo, HOUR_MS } from '../../domain/ledger/buckets.ts'
import { addAmounts, noAmounts, splitByTokens, totalNanoUsd } from '../../domain/ledger/rows.ts'
import { type LedgerAmounts, OTHER_NAME } from '../../domain/ledger/types.ts'
import { usd } from '../../domain/prices/money.ts'
import { CostReading, type CostSource } from '../../processor/cost/cost-reading.ts'
import { usdPerMillion } from '../../report/cost-figures.ts'
import { type CostQuery, costQuery } from '../../report/cost-query.ts'
import { settlesWithin } from '../../runtime/waiting.ts'

const REFRESH_MS = 15_000
const MAX_WAIT_MS = 1000
/** An hour is complete once its last cells are computed: they are due 105 s after their end. */
const SETTLED_MS = 180_000
const MAX_MODELS = 100

/** Labels that OpenCost takes from Kubernetes, which we do not have; `unknown` is its own placeholder. */
const [MODEL_VERSION, NAMESPACE, WORKLOAD_TYPE] = ['unknown', '', 'inference']
const MODEL_LABELS = ['model_name', 'model_version', 'namespace', 'cost_basis', 'workload_type'] as const

export interface ModelAmounts {
  /** Null: cost that belongs to no model. */
  model: string | null
  amounts: LedgerAmounts
}

interface LastHour {
  startMs: number
  models: ModelAmounts[]
}

export interface LedgerGaugesOptions {
  registry: Registry
  /** The gauge that also holds the live figures, with basis `live`; reset by its owner. */
  costPerMillion: Gauge<'model' | 'basis'>
  now: () => number
}

export class LedgerGauges {
  readonly #source: CostSource
  readonly #now: () => number
  readonly #costPerMillion: Gauge<'model' | 'basis'>
  readonly #hourly: Gauge<'model'>
  readonly #idle: Gauge<'model' | 'kind'>
  readonly #uncovered: Gauge
  readonly #hourStart: Gauge
  readonly #openCostTotal: Gauge<(typeof MODEL_LABELS)[number]>
  readonly #openCostPerMillion: Gauge<(typeof MODEL_LABELS)[number] | 'phase' | 'allocation_method'>
  #lastHour: LastHour | null = null
  #requestedMs = Number.NEGATIVE_INFINITY
  #reading: Promise<void> | null = null

  constructor(source: CostSource, { registry, costPerMillion, now }: LedgerGaugesOptions) {
    this.#source = source
    this.#now = now
    this.#costPerMillion = costPerMillion
    const gauge = <T extends string>(name: string, help: string, labelNames: readonly T[]) =>
      new Gauge<T>({ name, help, labelNames, registers: [registry] })
    const hour = 'in the last full hour of the ledger, USD'
    this.#hourly = gauge('pertoken_hourly_cost_usd', `Fully loaded cost ${hour}; model "": none`, ['model'])
    this.#idle = gauge('pertoken_idle_usd', `Idle cost ${hour}`, ['model', 'kind'])
    this.#uncovered = gauge('pertoken_uncovered_usd', `Cost of GPUs paid for and not monitored ${hour}`, [])
    this.#hourStart = gauge('pertoken_ledger_hour_start_seconds', 'Start of the last full hour of the ledger, Unix', [])
    this.#openCostTotal = gauge(
      'llm_total_hourly_cost',
      'Hourly cost of a model, USD, as OpenCost names it',
      MODEL_LABELS,
    )
    this.#openCostPerMillion = gauge(
      'llm_cost_per_million_tokens',
      'Cost of a million tokens, USD, as OpenCost names it; no phase: prompt and generation',
      [...MODEL_LABELS, 'phase', 'allocation_method'],
    )
  }

  /** Reads the store again when the figures are old; resolves within a second, with or without a result. */
  async refresh(): Promise<void> {
    if (this.#reading === null && this.#now() - this.#requestedMs >= REFRESH_MS) {
      this.#requestedMs = this.#now()
      this.#reading = this.#read().finally(() => {
        this.#reading = null
      })
    }
    if (this.#reading === null) return
    await settlesWithin(MAX_WAIT_MS, this.#reading)
  }

  /** Sets all gauges to the newest figures; gauges without a figure are absent. */
  set(): void {
    const gauges = [this.#hourly, this.#idle, this.#uncovered, this.#hourStart]
    for (const gauge of [...gauges, this.#openCostTotal, this.#openCostPerMillion]) gauge.reset()
    for (const gauge of [this.#uncovered, this.#hourStart]) gauge.remove()
    if (this.#lastHour === null) return
    const { startMs, models } = this.#lastHour
    let uncovered = 0n
    for (const { model, amounts } of models) {
      this.#setModel(model, amounts)
      if (model !== null) this.#setOpenCost(model, amounts)
      uncovered += amounts.uncovered_nano_usd
    }
    this.#uncovered.set(usd(uncovered))
    this.#hourStart.set(startMs / 1000)
  }

  /** Never rejects: while the store is unavailable there are no figures. */
  async #read(): Promise<void> {
    const toMs = floorTo(HOUR_MS, this.#now() - SETTLED_MS)
    const question = { fromMs: toMs - HOUR_MS, toMs, step: 'all', by: ['model'], idle: 'own' } as const
    try {
      const models: ModelAmounts[] = []
      const reading = new CostReading(this.#source, costQuery(question) as CostQuery)
      for await (const { key, amounts } of reading.rows()) models.push({ model: key.model, amounts })
      this.#lastHour = models.length === 0 ? null : { startMs: question.fromMs, models: boundedAmounts(models) }
    } catch {
      this.#lastHour = null
    }
  }

  #setModel(name: string | null, amounts: LedgerAmounts): void {
    const model = name ?? ''
    const tokens = amounts.prompt_tokens + amounts.completion_tokens
    const loaded = usdPerMillion(totalNanoUsd(amounts), tokens)
    const busy = usdPerMillion(amounts.busy_nano_usd, tokens)
    if (loaded !== null) this.#costPerMillion.set({ model, basis: 'fully_loaded' }, loaded)
    if (busy !== null) this.#costPerMillion.set({ model, basis: 'busy' }, busy)
    this.#hourly.set({ model }, usd(totalNanoUsd(amounts)))
    this.#idle.set({ model, kind: 'loaded' }, usd(amounts.loaded_idle_nano_usd))
    if (name === null) this.#idle.set({ model, kind: 'unallocated' }, usd(amounts.unallocated_nano_usd))
  }

  #setOpenCost(model: string, amounts: LedgerAmounts): void {
    const { prompt_tokens, completion_tokens } = amounts
    for (const basis of ['allocation', 'usage'] as const) {
      const named = { model_name: model, model_version: MODEL_VERSION, namespace: NAMESPACE }
      const labels = { ...named, cost_basis: basis, workload_type: WORKLOAD_TYPE }
      const money = basis === 'allocation' ? totalNanoUsd(amounts) : amounts.busy_nano_usd
      const parts = splitByTokens(money, amounts)
      const set = (phase: string, method: string, value: number | null) => {
        if (value !== null) this.#openCostPerMillion.set({ ...labels, phase, allocation_method: method }, value)
      }
      this.#openCostTotal.set(labels, usd(money))
      set('', '', usdPerMillion(money, prompt_tokens + completion_tokens))
      if (parts === null) continue
      set('prompt', 'weighted_tokens', usdPerMillion(parts[0], prompt_tokens))
      set('generation', 'weighted_tokens', usdPerMillion(parts[1], completion_tokens))
    }
  }
}

/** Cost of no model, the hundred costliest models by name, and the sum of the others under the ledger's name. */
export function boundedAmounts(models: readonly ModelAmounts[]): ModelAmounts[] {
  const withoutModel = models.filter(({ model }) => model === null)
  const named = models.filter(({ model }) => model !== null && model !== OTHER_NAME)
  const cost = ({ amounts }: ModelAmounts) => totalNanoUsd(amounts)
  named.sort((a, b) => (cost(b) > cost(a) ? 1 : cost(b) < cost(a) ? -1 : 0))
  const rest = [...models.filter(({ model }) => model === OTHER_NAME), ...named.slice(MAX_MODELS)]
  if (rest.length === 0) return [...withoutModel, ...named]
  const other = { model: OTHER_NAME, amounts: noAmounts() }
  for (const { amounts } of rest) addAmounts(other.amounts, amounts)
  return [...withoutModel, ...named.slice(0, MAX_MODELS), other]
}
