// `pertoken up`: everything in one process. With --demo a workload shaped like a published trace runs beside it, on the
// embedded log and store only: demo events must not mix with real ones.

import { type Command, UsageError } from '../command.ts'
import { SERVICE_OPTIONS } from './processor.ts'

export const up: Command = {
  usage: '[--demo] [--embedded]',
  flags: {
    demo: { help: 'Adds a demo workload and a demo fleet of six GPUs' },
    embedded: { help: 'Ignores KAFKA_BOOTSTRAP and MONGO_URL' },
  },
  options: SERVICE_OPTIONS,
  async run(context) {
    let { config } = context
    const external = (['KAFKA_BOOTSTRAP', 'MONGO_URL'] as const).filter((name) => config[name] !== null)
    if (context.flags['embedded'] === true) {
      if (external.length > 0)
        context.say(`Ignoring ${external.join(' and ')}: this runs on the embedded log and store\n`)
      config = { ...config, KAFKA_BOOTSTRAP: null, MONGO_URL: null }
    } else if (context.flags['demo'] === true && external.length > 0) {
      throw new UsageError(
        `--demo runs on the embedded log and store only: ${external.join(' and ')} is set; unset it or add --embedded`,
      )
    }
    const service = { ...context, config }
    const host = config.HOST ?? '127.0.0.1'
    const { runService } = await import('../wiring/service.ts')
    if (context.flags['demo'] !== true) return runService(service, { host })
    const { runDemo } = await import('../../producers/demo.ts')
    const topics = { gpu: config.TOPIC_METRIC, token: config.TOPIC_TOKEN }
    return runService(service, { host, beside: (log, signal) => runDemo(log, topics, signal) })
  },
}
