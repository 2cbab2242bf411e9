// An optional field that is null counts as absent: serializers of Python, Go and Java print each field of their class,
// and a GPU that does not report its memory has none to print. A required field stays null, and is rejected.

import { type EventKind, GpuSampleSchema, KNOWN_FIELDS, TokenUsageSchema } from './event.ts'

const OPTIONAL_FIELDS: Readonly<Record<EventKind, readonly string[]>> = {
  gpu: optionalOf(KNOWN_FIELDS.gpu, GpuSampleSchema),
  token: optionalOf(KNOWN_FIELDS.token, TokenUsageSchema),
}

/** Removes the optional fields that are null; returns whether there was one. */
export function removeNulls(kind: EventKind, event: Record<string, unknown>): boolean {
  let removed = false
  for (const name of OPTIONAL_FIELDS[kind]) {
    if (event[name] !== null) continue
    delete event[name]
    removed = true
  }
  return removed
}

function optionalOf(names: ReadonlySet<string>, schema: { required?: readonly string[] }): string[] {
  return [...names].filter((name) => !schema.required?.includes(name))
}
