// The model of an engine whose counters name none (llama.cpp, TGI): what its list of models has as its only one.

import { type fetchPage, PageError } from '../exposition/fetch-page.ts'

const TIMEOUT_MS = 2000
const MAX_BYTES = 1024 * 1024
const MAX_LENGTH = 256

/** The name that the engine itself serves the model under; null: it has none, or several. */
export async function modelOfEngine(page: URL, fetch: typeof fetchPage, signal: AbortSignal): Promise<string | null> {
  for (const [path, read] of [
    ['v1/models', onlyModel],
    ['info', modelId],
  ] as const) {
    const url = new URL(page)
    url.pathname = url.pathname.replace(/[^/]*$/, path)
    url.search = ''
    try {
      const name = read(JSON.parse(await fetch(url, { timeoutMs: TIMEOUT_MS, maxBytes: MAX_BYTES, signal })))
      if (typeof name === 'string' && name !== '') return name.slice(0, MAX_LENGTH)
    } catch (error) {
      if (!(error instanceof PageError || error instanceof SyntaxError || error instanceof TypeError)) throw error
    }
  }
  return null
}

function onlyModel(body: { data?: { id?: unknown }[] }): unknown {
  return body.data?.length === 1 ? body.data[0]!.id : null
}

function modelId(body: { model_id?: unknown }): unknown {
  return body.model_id
}
