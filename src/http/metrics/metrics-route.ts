// GET /metrics, for Prometheus: nothing is counted here, all figures are read from the processor at each scrape, those
// of the ledger by ledger-gauges.ts and keeper-gauges.ts. Labels are bounded, since model and host names are external:
// a hundred models (the busiest; the rest are summed as `other`) and a thousand slots (pertoken_live_slots is their
// number).

import type { FastifyInstance } from 'fastify'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { LiveModel } from '../../domain/live/live-figures.ts'
import { costSourceOf, type HttpDependencies, withFileFaults } from '../dependencies.ts'
import { byModel, type LiveView, liveView } from '../live-view.ts'
import { KeeperGauges } from './keeper-gauges.ts'
import { LedgerGauges } from './ledger-gauges.ts'

const MAX_MODELS = 100
const MAX_SLOTS = 1000
const OTHER = 'other'

export function addMetricsRoute(app: FastifyInstance, dependencies: HttpDependencies): void {
  const metrics = new Metrics(dependencies)
  const schema = {
    tags: ['operations'],
    summary: 'Metrics for Prometheus',
    response: {
      200: { description: 'Text exposition format', content: { 'text/plain': { schema: { type: 'string' } } } },
    },
  }
  app.get('/metrics', { schema, config: { scope: 'read' } }, async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.scrape()
  })
}

class Metrics {
  readonly #dependencies: HttpDependencies
  readonly #registry = new Registry()
  readonly #records = this.#counter('pertoken_records_total', 'Records of the log by what became of them', ['outcome'])
  readonly #rejected = this.#counter('pertoken_records_rejected_total', 'Refused records by reason', ['reason'])
  readonly #late = this.#counter('pertoken_records_late_total', 'Stored token events whose live window was gone')
  readonly #lag = this.#gauge('pertoken_consumer_lag_records', 'Records that are not read yet')
  readonly #steps = this.#gauge('pertoken_steps_open', 'Steps that are read and not finished')
  readonly #slots = this.#gauge('pertoken_live_slots', 'GPU slots in the live window')
  readonly #healthy = this.#gauge('pertoken_healthy', '1 when /health says ok, else 0')
  readonly #stale = this.#gauge('pertoken_live_stale', '1 when the live figures are of the past, else 0')
  readonly #cost = this.#gauge(
    'pertoken_cost_per_million_tokens_usd',
    'Cost of a million tokens (prompt and completion), USD; basis live: the live window; fully_loaded and busy: the last full hour of the ledger',
    ['model', 'basis'],
  )
  readonly #speed = this.#gauge('pertoken_tokens_per_second', 'Live tokens per second', ['model'])
  readonly #utilization = this.#gauge('pertoken_gpu_utilization_ratio', 'Share of time that the GPU was busy', SLOT)
  readonly #price = this.#gauge(
    'pertoken_gpu_price_per_hour_usd',
    'Price of the GPU now, with what it draws where it is owned, USD per hour',
    SLOT,
  )
  readonly #fleetCost = this.#gauge(
    'pertoken_fleet_cost_per_million_tokens_usd',
    'Live cost of a million tokens, USD: all the money of the fleet, idle GPUs included, over all its tokens; busy: without idle',
    ['basis'],
  )
  readonly #fleetPrice = this.#gauge(
    'pertoken_fleet_price_per_hour_usd',
    'Live price of all GPUs, USD per hour; busy and idle are the fully loaded cost, uncovered (not monitored) is beside it',
    ['kind'],
  )
  readonly #ledger: LedgerGauges
  readonly #keeper: KeeperGauges | null
  readonly #denied: Counter<'reason'> | null

  constructor(dependencies: HttpDependencies) {
    this.#dependencies = dependencies
    collectDefaultMetrics({ register: this.#registry })
    const [registry, costPerMillion] = [this.#registry, this.#cost]
    this.#ledger = new LedgerGauges(costSourceOf(dependencies), { registry, costPerMillion, now: dependencies.now })
    this.#keeper = dependencies.keeper === undefined ? null : new KeeperGauges(dependencies.keeper, registry)
    const help = 'Requests that were refused for their API token or for a limit, by reason'
    this.#denied =
      dependencies.access === undefined ? null : this.#counter('pertoken_http_refused_total', help, ['reason'])
    this.#gauge('pertoken_build_info', 'Version of the program', ['version']).set({ version: dependencies.version }, 1)
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** Reads all figures now and renders them. */
  async scrape(): Promise<string> {
    const health = withFileFaults(this.#dependencies.processor.health(), this.#dependencies)
    const { outcomes } = health
    setTotal(this.#records, [
      [{ outcome: 'stored' }, outcomes.stored],
      [{ outcome: 'duplicate' }, outcomes.duplicate],
      [{ outcome: 'rejected' }, outcomes.rejected],
    ])
    setTotal(
      this.#rejected,
      Object.entries(outcomes.rejected_by_reason).map(([reason, count]) => [{ reason }, count]),
    )
    setTotal(this.#late, [[{}, outcomes.late]])
    this.#lag.reset()
    if (health.lag === null) this.#lag.remove()
    else this.#lag.set(health.lag)
    this.#steps.set(health.open_steps)
    this.#slots.set(health.slots)
    this.#healthy.set(health.status === 'ok' ? 1 : 0)
    this.#setLive(liveView(this.#dependencies.processor))
    await this.#ledger.refresh()
    this.#ledger.set()
    this.#keeper?.set()
    const { access } = this.#dependencies
    if (access !== undefined && this.#denied !== null) {
      setTotal(
        this.#denied,
        Object.entries(access.denied).map(([reason, count]) => [{ reason }, count]),
      )
    }
    return this.#registry.metrics()
  }

  #setLive({ models, slots, totals, stale }: LiveView): void {
    for (const gauge of [this.#cost, this.#speed, this.#utilization, this.#price, this.#fleetCost]) gauge.reset()
    this.#stale.set(stale ? 1 : 0)
    this.#fleetPrice.set({ kind: 'busy' }, totals.busy_usd_per_hour)
    this.#fleetPrice.set({ kind: 'idle' }, totals.idle_usd_per_hour)
    this.#fleetPrice.set({ kind: 'uncovered' }, totals.uncovered_usd_per_hour)
    const { usd_per_million_tokens: loaded, usd_per_million_tokens_busy: busy } = totals
    if (loaded !== null) this.#fleetCost.set({ basis: 'fully_loaded' }, loaded)
    if (busy !== null) this.#fleetCost.set({ basis: 'busy' }, busy)
    for (const { model, tokens_per_second, usd_per_million_tokens } of boundedModels(models)) {
      this.#speed.set({ model }, tokens_per_second)
      if (usd_per_million_tokens !== null) this.#cost.set({ model, basis: 'live' }, usd_per_million_tokens)
    }
    for (const slot of slots.slice(0, MAX_SLOTS)) {
      const labels = { host: slot.host ?? '', gpu_index: slot.gpu_index }
      if (slot.utilization !== null) this.#utilization.set(labels, slot.utilization)
      this.#price.set(labels, slot.price_per_hour_usd)
    }
  }

  #counter<T extends string = never>(name: string, help: string, labelNames: readonly T[] = []): Counter<T> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] })
  }

  #gauge<T extends string = never>(name: string, help: string, labelNames: readonly T[] = []): Gauge<T> {
    return new Gauge({ name, help, labelNames, registers: [this.#registry] })
  }
}

const SLOT = ['host', 'gpu_index'] as const

/** The busiest models by name, and the sum of all others; a model that is itself named `other` is one of those. */
export function boundedModels(
  models: readonly LiveModel[],
): Pick<LiveModel, 'model' | 'tokens_per_second' | 'usd_per_million_tokens'>[] {
  const named = models.filter(({ model }) => model !== OTHER)
  named.sort((a, b) => b.tokens_per_second - a.tokens_per_second || byModel(a, b))
  const kept = named.slice(0, MAX_MODELS)
  const rest = [...named.slice(MAX_MODELS), ...models.filter(({ model }) => model === OTHER)]
  if (rest.length === 0) return kept
  const tokensPerSecond = rest.reduce((sum, model) => sum + model.tokens_per_second, 0)
  const usdPerSecond = rest.reduce((sum, model) => sum + model.tokens_per_second * (model.cost_per_token ?? 0), 0)
  const cost = tokensPerSecond === 0 ? null : (usdPerSecond / tokensPerSecond) * 1e6
  return [...kept, { model: OTHER, tokens_per_second: tokensPerSecond, usd_per_million_tokens: cost }]
}

function setTotal<T extends string>(
  counter: Counter<T>,
  totals: readonly (readonly [Partial<Record<T, string>>, number])[],
): void {
  counter.reset()
  for (const [labels, total] of totals) counter.inc(labels, total)
}
