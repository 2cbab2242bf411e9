// The trace that flows replay: a real one (Azure's LLM inference trace, code) where it lies beside the repository, else
// a generated one of the same form, so that a flow runs anywhere.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** One request of the trace. */
export interface TraceRow {
  atMs: number
  prompt: number
  completion: number
  /** The line as it is in the file. */
  line: string
}

export const TRACE_HEADER = 'TIMESTAMP,ContextTokens,GeneratedTokens'
export const REAL_TRACE = new URL('../../../../shared/data/azure-llm-2023/code.csv', import.meta.url).pathname

/** The real trace where it is there, else one of the same form in `directory`. */
export function traceFile(directory: string): string {
  if (existsSync(REAL_TRACE)) return REAL_TRACE
  const rows = Array.from({ length: 3000 }, (_, i) => {
    const at = new Date(Date.UTC(2023, 10, 16, 18) + i * 137 + (i % 7) * 950)
      .toISOString()
      .replace('T', ' ')
      .replace('Z', '4567')
    return `${at},${(i * 7919) % 7000},${(i * 104_729) % 300}`
  }).sort()
  const path = join(directory, 'trace.csv')
  writeFileSync(path, `${TRACE_HEADER}\r\n${rows.join('\r\n')}`)
  return path
}

export function readTraceRows(path: string): TraceRow[] {
  const lines = readFileSync(path, 'utf8')
    .split(/\r?\n/)
    .slice(1)
    .filter((line) => line !== '')
  return lines.map((line) => {
    const [time, prompt, completion] = line.split(',') as [string, string, string]
    return {
      atMs: Date.parse(`${time.slice(0, 23).replace(' ', 'T')}Z`),
      prompt: Number(prompt),
      completion: Number(completion),
      line,
    }
  })
}
