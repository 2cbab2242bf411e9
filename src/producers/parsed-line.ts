// A line of a trace as far as it is parsed, in whichever format it was written.

/** What is wrong with a line. */
export interface LineError {
  error: string
  /** All further lines would have the same error. */
  isFatal: boolean
}

/** Fields of an event, unchecked, and the names of those that were left out; or why there is none. */
export type ParsedLine = { event: Record<string, unknown>; unread?: readonly string[] } | LineError

export function wrongLine(error: string, isFatal = false): LineError {
  return { error, isFatal }
}

/** Names the columns or fields of a trace that are not taken into events. */
export function unreadText(names: readonly string[]): string {
  return `Not read, as no field of an event is known for it: ${names.map(quote).join(', ')}`
}

export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}
