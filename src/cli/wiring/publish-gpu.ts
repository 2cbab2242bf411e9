// `processor --publish-gpu`: the processor samples the GPUs of its own host, as an agent would, directly into the log.
// Only measured figures: the seed is never used. A host without a usable driver is probed again every minute, since
// that is no reason to stop the processor.

import { setTimeout as sleep } from 'node:timers/promises'
import { runAgent } from '../../agent/agent.ts'
import { createState } from '../../agent/agent-state.ts'
import { logSink } from '../../agent/log-sink.ts'
import { memorySpool } from '../../agent/memory-spool.ts'
import type { EventLog } from '../../log/event-log.ts'
import type { Config } from '../options.ts'
import { findGpuSource, noGpuLine, sampleSettings } from './gpu-sources.ts'
import { defaultPartitions, makeLogger } from './wire.ts'

const RETRY_MS = 60_000
/** Short, because the processor's own drain has to fit into the same ten seconds. */
const DRAIN_MS = 2000

/** Publishes until the signal aborts; faults of GPUs and log are logged, never thrown. */
export async function publishOwnGpus(config: Config, log: EventLog, signal: AbortSignal): Promise<void> {
  const logger = makeLogger(config)
  const state = createState(logger)
  const settings = sampleSettings(config)
  while (!signal.aborted) {
    const { source, tried } = await findGpuSource(config, null)
    if (source === null) {
      state.report('source', [noGpuLine(tried.filter(({ name }) => name !== 'seed'))], 'error')
      await sleep(RETRY_MS, undefined, { signal }).catch(() => {})
      continue
    }
    logger.info({ source: source.name }, 'Publishes the samples of this host’s GPUs')
    const topics = { gpu: config.TOPIC_METRIC, token: config.TOPIC_TOKEN }
    await runAgent({
      source,
      settings,
      intervalMs: config.AGENT_INTERVAL_SEC * 1000,
      state,
      spool: memorySpool(state),
      sink: logSink(log, { topics, partitions: defaultPartitions(config) }),
      logger,
      signal,
      drainMs: DRAIN_MS,
    })
    await source.close()
  }
}
