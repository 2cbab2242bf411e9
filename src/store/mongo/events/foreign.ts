// Reads the documents of an older deployment (no ids of ours) as events, for `replay --from-mongo`.

import type { GpuSample, TokenUsage } from '../../../domain/events/event.ts'
import { isOwnId } from '../../../domain/events/event-id.ts'
import { foreignEvent } from '../../../domain/events/foreign-document.ts'
import { openDatabase } from '../connection.ts'

export type ForeignEvent =
  | { topic: 'gpu'; event: GpuSample; line: number }
  | { topic: 'token'; event: TokenUsage; line: number }

/** Streams both collections of the URL's database, samples first, each by id. Throws what the driver throws. */
export async function* readForeignDocuments(url: string): AsyncGenerator<ForeignEvent> {
  const { client, db } = openDatabase(url, { serverSelectionTimeoutMS: 10_000 }, { name: 'the URL of --from-mongo' })
  try {
    let line = 0
    for (const [name, topic] of [
      ['gpu_metrics', 'gpu'],
      ['token_usage', 'token'],
    ] as const) {
      for await (const document of db.collection(name).find().sort({ _id: 1 })) {
        line++
        if (!isOwnId(document['_id'])) yield { topic, event: foreignEvent(topic, document), line } as ForeignEvent
      }
    }
  } finally {
    await client.close()
  }
}
