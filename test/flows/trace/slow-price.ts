// The live price of token events, computed the slow and obvious way: for each event, go through all events before it.
// Written apart from src/ on purpose: it imports nothing from there.

export interface PricedEvent {
  atMs: number
  tokens: number
}

/** cost_per_token of each event, in the order in which they passed; all on one slot with one price; null when late. */
export function slowCostPerToken(
  events: readonly PricedEvent[],
  hourlyUsd: number,
  windowSeconds = 30,
  latenessSeconds = 10,
): (number | null)[] {
  const second = (event: PricedEvent) => Math.floor(event.atMs / 1000)
  const onTime: PricedEvent[] = []
  let newest = Number.NEGATIVE_INFINITY
  return events.map((event) => {
    if (second(event) < newest - latenessSeconds) return null
    newest = Math.max(newest, second(event))
    onTime.push(event)
    let tokens = 0
    for (let i = onTime.length - 1; i >= 0; i--) {
      const age = second(event) - second(onTime[i]!)
      if (age > windowSeconds + latenessSeconds) break
      if (age >= 0 && age < windowSeconds) tokens += onTime[i]!.tokens
    }
    return tokens === 0 ? null : ((hourlyUsd / 3600) * windowSeconds) / tokens
  })
}
