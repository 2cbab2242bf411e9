// The process that calls NVML, started by nvml-session.ts. A call into the driver blocks its thread and may never
// return, so it may run neither on the agent's event loop nor on any of its threads (a process cannot exit while one of
// its threads hangs: measured). For each request it reports which GPUs it will read, then each GPU as soon as it is
// read, then the end, so the agent knows at which GPU it fell silent. The library stays initialised between readings.
// When the driver as a whole fails, the process reports it and exits: only a new process loads a library that was
// replaced meanwhile. It ends with its parent, however that ended.

import { dieWithParent, type NvmlLibrary, openNvmlLibrary } from './nvml-library.ts'
import { type GpuResult, NvmlUninitialized, openNvml, readGpu } from './nvml-reading.ts'

/** Asks the process for one reading. */
export interface ReadRequest {
  library: string
  /** Shuts NVML down first, so that it lists the GPUs again. */
  reopen: boolean
  /** GPUs that are not touched. */
  leaveOut: number[]
  /** GPUs that are read after the others. */
  last: number[]
  /** Whether the processes on each GPU are listed, too. */
  withProcesses: boolean
}

/** The process's messages: the GPUs that it will read, in order; the result of one; the end; why none can be read. */
export type NvmlMessage = { order: number[] } | { gpu: GpuResult } | { done: true } | { failed: string }

let library: NvmlLibrary | null = null
/** GPUs as of the last initialisation; null before it. */
let count: number | null = null

// Ctrl-C and systemd signal the agent's children too, but when this process ends is for the agent to decide.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('message', (request: ReadRequest) => void handle(request))
process.on('disconnect', () => {
  close()
  process.exit()
})

async function handle(request: ReadRequest): Promise<void> {
  try {
    library ??= await openNvmlLibrary(request.library)
    if (request.reopen) close()
    try {
      readAll(library, request)
    } catch (error) {
      if (!(error instanceof NvmlUninitialized)) throw error
      count = null
      readAll(library, request)
    }
  } catch (error) {
    send({ failed: (error as Error).message }, () => process.exit())
  }
}

function readAll(nvml: NvmlLibrary, { leaveOut, last, withProcesses }: ReadRequest): void {
  count ??= openNvml(nvml)
  const order = Array.from({ length: count }, (_, index) => index).filter((index) => !leaveOut.includes(index))
  order.sort((a, b) => Number(last.includes(a)) - Number(last.includes(b)) || a - b)
  send({ order })
  for (const index of order) send({ gpu: readGpu(nvml, index, withProcesses) })
  send({ done: true })
}

function close(): void {
  if (count !== null) library?.shutdown()
  count = null
}

function send(message: NvmlMessage, then?: () => void): void {
  process.send?.(message, undefined, undefined, then)
}

await dieWithParent()
