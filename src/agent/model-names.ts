// Which model each GPU holds, as a person says it: one name for all GPUs, or `0=NAME,1=NAME`. The driver cannot tell.

/** Longest name that the topic takes. */
const MAX_LENGTH = 256
const MAX_GPU_INDEX = 1023

/** The model on a GPU; null where nobody said. */
export type ModelNames = (gpuIndex: number) => string | null

/**
 * Reads `NAME`, or a list of `INDEX=NAME` with commas. Text that begins with digits and `=` is a list.
 * @throws RangeError that says what is wrong and what was expected.
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
