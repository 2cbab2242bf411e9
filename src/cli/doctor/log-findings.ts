// Checks of `doctor`: the log. Whether it responds, whether each Kafka broker can be reached at the address that it
// advertises (the classic mistake is one that clients cannot reach), whether the topics exist, and whether an older
// processor is still in the group.

import { type EventLog, LogError } from '../../log/event-log.ts'
import type { KafkaLogOptions } from '../../log/kafka/options.ts'
import type { Config } from '../options.ts'
import type { Finding } from './finding.ts'

interface LogCheck {
  /** Null for the embedded log. */
  kafka: KafkaLogOptions | null
  /** This machine only publishes. */
  isProducer: boolean
}

export async function checkLog(config: Config, log: EventLog, { kafka, isProducer }: LogCheck): Promise<Finding[]> {
  try {
    await log.ping()
    const reached = { part: 'log', ok: true, message: `Reached ${log.description}` }
    const brokers = kafka === null ? [] : await checkBrokers(kafka)
    // With a broker that cannot be reached, every further request would only wait for its own time-out.
    if (brokers.length > 0) return [reached, ...brokers]
    const names = [config.TOPIC_METRIC, config.TOPIC_TOKEN]
    if (isProducer) return [reached, await checkTopics(log, names)]
    return [
      reached,
      await checkTopics(log, [...names, config.TOPIC_DEAD]),
      ...(kafka === null ? [] : await checkGroup(kafka, config.KAFKA_GROUP)),
    ]
  } catch (error) {
    const remedy = error instanceof LogError && error.hasRemedy ? '' : '; check KAFKA_BOOTSTRAP and that it runs'
    const message = `Cannot use ${log.description}: ${(error as Error).message}${remedy}`
    return [{ part: 'log', ok: false, message }]
  }
}

/** Whether further requests to the log make sense. */
export function isLogUsable(findings: readonly Finding[]): boolean {
  return findings.every(({ part, ok }) => ok !== false || (part !== 'log' && part !== 'brokers'))
}

/** One finding for each broker that cannot be used. */
async function checkBrokers(kafka: KafkaLogOptions): Promise<Finding[]> {
  const { probeBrokers } = await import('../../log/kafka/diagnostics.ts')
  const brokers = await probeBrokers(kafka)
  return brokers.flatMap(({ address, node, fault }) => {
    if (fault === null) return []
    const message =
      `Kafka at ${kafka.bootstrap} answers, but sends clients on to ${address} (broker ${node}), which cannot be used from ` +
      `here (${fault}): set advertised.listeners of that broker to an address that its clients reach, or open the way to it`
    return [{ part: 'brokers', ok: false, message }]
  })
}

async function checkTopics(log: EventLog, names: readonly string[]): Promise<Finding> {
  const described = await log.describe(names)
  const missing = names.filter((name) => !described.some((topic) => topic.name === name))
  if (missing.length === 0) return { part: 'topics', ok: true, message: names.join(', ') }
  const message = `Missing: ${missing.join(', ')}: run pertoken topics, or start the processor`
  return { part: 'topics', ok: false, message }
}

async function checkGroup(kafka: KafkaLogOptions, group: string): Promise<Finding[]> {
  const { probeGroup } = await import('../../log/kafka/diagnostics.ts')
  const found = await probeGroup(kafka, group).catch((error: Error) => error)
  if (found instanceof Error) return [{ part: 'group', ok: false, message: found.message }]
  const { members, incompatible } = found
  if (incompatible.length > 0) {
    const message = `An older processor is in group "${group}": ${incompatible.join(', ')}; stop it, since the two cannot share partitions`
    return [{ part: 'group', ok: false, message }]
  }
  const counted = members === 1 ? '1 processor' : `${members} processors`
  return [{ part: 'group', ok: true, message: `${members === 0 ? 'No processor' : counted} in group "${group}"` }]
}
