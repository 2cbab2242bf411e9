// Writes the JSON Schema files of both topics from their one definition; a test compares them.

import { writeFileSync } from 'node:fs'
import { GpuSampleSchema, TokenUsageSchema } from '../../src/domain/events/event.ts'

for (const schema of [GpuSampleSchema, TokenUsageSchema]) {
  const text = JSON.stringify({ $schema: 'https://json-schema.org/draft/2020-12/schema', ...schema }, null, 2)
  writeFileSync(new URL(`./${(schema as unknown as { $id: string }).$id}.json`, import.meta.url), `${text}\n`)
}
