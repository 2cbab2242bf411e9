// The process that calls NVML, started by nvml-child.ts: a call into the driver blocks its thread and may never return,
// so it may happen neither on the agent's event loop nor on any of its threads (a process cannot exit while one of its
// threads hangs: measured). Here it blocks nobody. For each request it says which GPUs it will read, then each GPU as
// soon as it is read, then that it is done; so the agent knows where it stands when it falls silent. The library stays
// initialised between readings. When the driver as a whole fails, the process says so and ends: only a new one
// loads a library that was replaced meanwhile. It ends with its parent, however that ended.

import type { Request, Word } from './nvml-child.ts'
import { dieWithParent, type NvmlLibrary, openNvmlLibrary } from './nvml-library.ts'
import { NvmlUninitialized, openNvml, readGpu } from './nvml-reading.ts'

let library: NvmlLibrary | null = null
/** GPUs as of the last initialisation; null before it. */
let count: number | null = null

// Ctrl-C and systemd signal the agent's children too: the agent says when to end, not they.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
process.on('message', (request: Request) => void answer(request))
process.on('disconnect', () => {
  close()
  process.exit()
})

async function answer(request: Request): Promise<void> {
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
    say({ failed: (error as Error).message }, () => process.exit())
  }
}

function readAll(nvml: NvmlLibrary, { leaveOut, last }: Request): void {
  count ??= openNvml(nvml)
  const gpus = Array.from({ length: count }, (_, index) => index).filter((index) => !leaveOut.includes(index))
  gpus.sort((a, b) => Number(last.includes(a)) - Number(last.includes(b)) || a - b)
  say({ reading: gpus })
  for (const index of gpus) say({ gpu: readGpu(nvml, index) })
  say({ done: true })
}

function close(): void {
  if (count !== null) library?.shutdown()
  count = null
}

function say(word: Word, then?: () => void): void {
  process.send?.(word, undefined, undefined, then)
}

await dieWithParent()
