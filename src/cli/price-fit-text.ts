// How a price book fits the GPUs that were seen, as text: rules that fit none, and GPUs that get the default since no
// rule fits them. Shown by `prices set` and `prices show`, over the store and over HTTP, and in short by `doctor`.

import type { BookFit } from '../processor/prices/seen-gpus.ts'

const MAX_GPUS = 5

/** Lines for a terminal; empty where every rule fits and every GPU has a price of its own. */
export function priceFitText(fit: BookFit): string {
  if (fit.seen_since === null) return 'No GPU was seen yet: which rules fit is known once samples arrive\n'
  const { unmatched_rules: rules, unmatched_rules_count: count } = fit
  const lines = rules.map(({ message }) => message)
  if (count > rules.length) lines.push(`${count - rules.length} more rules fit no GPU that was seen`)
  if (rules.length > 0) lines.push(`GPUs were looked for since ${fit.seen_since}`)
  const unpriced = defaultText(fit)
  return [...lines, ...(unpriced === null ? [] : [unpriced])].map((line) => `${line}\n`).join('')
}

/** The GPUs that get the default in one line; null where none does. */
export function defaultText({ default_gpus: gpus, default_gpus_count: count }: BookFit): string | null {
  const first = gpus[0]
  if (first === undefined) return null
  const names = gpus
    .slice(0, MAX_GPUS)
    .map(({ host, gpu_index, name }) => `${host ?? '(no host)'}/${gpu_index}${name === null ? '' : ` (${name})`}`)
  const more = count > names.length ? ` and ${count - names.length} more` : ''
  return `No rule fits ${names.join(', ')}${more}: the default, ${first.usd_per_hour} USD/h`
}
