// Checks of `doctor`: the store. Whether it can be used, what it holds, and whether a first start beside documents of
// an older deployment still has to be given a start position.

import type { EventLog } from '../../log/event-log.ts'
import { whyUndecided } from '../../processor/ingest/start.ts'
import { type EventStore, StoreError } from '../../store/event-store.ts'
import type { Config } from '../options.ts'
import type { Finding } from './finding.ts'

export async function checkStore(store: EventStore): Promise<Finding[]> {
  try {
    await store.ping()
    const { warnings } = await store.prepare()
    const { foreign, ...counts } = await store.count()
    const left = `; ${foreign} documents of an older deployment, left as they are (docs/upgrade.md)`
    const older = foreign === 0 || foreign === null ? '' : left
    const summary = `${counts.gpuMetrics} samples, ${counts.tokenUsage} token events, ${counts.deadLetters} dead letters`
    return [
      { part: 'store', ok: true, message: `Reached ${store.description}: ${summary}${older}` },
      ...warnings.map((message) => ({ part: 'store', ok: false, message })),
    ]
  } catch (error) {
    const remedy = error instanceof StoreError && error.hasRemedy ? '' : '; check MONGO_URL and that it runs'
    const message = `Cannot use ${store.description}: ${(error as Error).message}${remedy}`
    return [{ part: 'store', ok: false, message }]
  }
}

/** Whether further requests to the store make sense. */
export function isStoreUsable(findings: readonly Finding[]): boolean {
  return findings[0]?.ok === true
}

/** Whether a processor could decide where to begin; log and store must both respond. */
export async function checkStart(config: Config, log: EventLog, store: EventStore): Promise<Finding[]> {
  const topics = [config.TOPIC_METRIC, config.TOPIC_TOKEN]
  try {
    const reason = await whyUndecided(log, store, { group: config.KAFKA_GROUP, topics })
    return reason === null ? [] : [{ part: 'start', ok: false, message: reason }]
  } catch (error) {
    return [{ part: 'start', ok: false, message: `Cannot tell where to begin: ${(error as Error).message}` }]
  }
}
