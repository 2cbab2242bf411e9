// A small agent for tests of how a process ends while the driver hangs: reads GPUs by NVML once, and ends on SIGTERM
// in the way that its second argument says.

import { NvmlSource } from '../../../src/agent/gpu/nvml/nvml-source.ts'

const [library, way] = process.argv.slice(2)
const source = new NvmlSource({ library: library!, timeoutMs: 1_000 })
const ticking = setInterval(() => {}, 1000)
process.once('SIGTERM', async () => {
  clearInterval(ticking)
  if (way === 'close') await source.close()
  else if (way === 'exit') process.exit(0)
})
await source.read().catch(() => {})
