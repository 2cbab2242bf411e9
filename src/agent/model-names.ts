// Which model each GPU holds, as configured: one name for all GPUs, or `0=NAME,1=NAME`. The driver does not know it.

/** Longest name that the event schema allows. */
const MAX_LENGTH = 256
const MAX_GPU_INDEX = 1023

/** Returns the model on a GPU; null where none is configured. */
export type ModelNames = (gpuIndex: number) => string | null

/**
 * Parses `NAME`, or a comma-separated list of `INDEX=NAME`. Text that begins with digits and `=` is a list.
 * @throws RangeError with what is wrong and what was expected.
 */
export function parseModelNames(text: string): ModelNames {
  if (!/^\s*\d+\s*=/.test(text)) {
    const name = checkedName(text)
    return () => name
  }
  const names = new Map<number, string>()
  for (const entry of text.split(',')) {
    const match = /^\s*(\d{1,4})\s*=(.*)$/.exec(entry)
    const index = Number(match?.[1])
    if (match === null || index > MAX_GPU_INDEX) {
      throw new RangeError(`Model list has "${entry.trim()}": expected INDEX=NAME, as in 0=llama,1=qwen`)
    }
    if (names.has(index)) throw new RangeError(`Model list names GPU ${index} twice: expected each index once`)
    names.set(index, checkedName(match[2]!))
  }
  return (gpuIndex) => names.get(gpuIndex) ?? null
}

function checkedName(text: string): string {
  const name = text.trim()
  if (name.length >= 1 && name.length <= MAX_LENGTH) return name
  throw new RangeError(`Model name has ${name.length} characters: expected 1 to ${MAX_LENGTH}`)
}
