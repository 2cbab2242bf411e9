import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { GpuDocument, TokenDocument } from '../../../src/domain/events/event.ts'
import { SlidingWindow, type SlidingWindowOptions, spread } from '../../../src/domain/live/sliding-window.ts'

const T0 = Date.UTC(2026, 10, 22, 12)

function makeWindow(options: Partial<SlidingWindowOptions> = {}): SlidingWindow {
  return new SlidingWindow({
    windowSeconds: 30,
    allowedLatenessSeconds: 10,
    priceOf: (_slot, sample) => ({ usdPerHour: sample?.price_per_hour_usd ?? 0.85, basis: 'sample' }),
    ...options,
  })
}

function token(atSeconds: number, change: Partial<TokenDocument> = {}): TokenDocument {
  const ts = new Date(T0 + atSeconds * 1000)
  const base = {
    _id: `t${atSeconds}`,
    ts,
    host: 'h',
    gpu_index: 0,
    model: 'm',
    prompt_tokens: 90,
    completion_tokens: 10,
  }
  return { ...base, cost_per_token: null, tokens_per_second: null, price_per_hour_usd: 0, window_s: 0, ...change }
}

function sample(atSeconds: number, change: Partial<GpuDocument> = {}): GpuDocument {
  return { _id: `s${atSeconds}`, ts: new Date(T0 + atSeconds * 1000), host: 'h', gpu_index: 0, ...change }
}

function priced(window: SlidingWindow, event: TokenDocument): TokenDocument {
  window.price(event, event.ts.getTime())
  return event
}

test('a token costs the full window of its slot divided by the tokens in the window, itself included', () => {
  const window = makeWindow()
  window.observe(sample(0, { price_per_hour_usd: 3.6 }))
  assert.equal(priced(window, token(0)).cost_per_token, (3.6 * 30) / 3600 / 100)
  assert.equal(priced(window, token(29)).cost_per_token, (3.6 * 30) / 3600 / 200)
  const third = priced(window, token(30))
  assert.equal(third.cost_per_token, (3.6 * 30) / 3600 / 200, 'the pane of second 0 has left')
  assert.equal(third.tokens_per_second, 200 / 30)
  assert.equal(third.price_per_hour_usd, 3.6)
  assert.equal(third.window_s, 30)
})

test('before any sample the default price counts; slots do not mix', () => {
  const window = makeWindow()
  priced(window, token(0, { gpu_index: 1, prompt_tokens: 1e6 }))
  assert.equal(priced(window, token(0)).cost_per_token, (0.85 * 30) / 3600 / 100)
})

test('late is per slot: more than the lateness behind the newest second of the own slot', () => {
  const window = makeWindow()
  priced(window, token(1000, { host: 'fast' }))
  priced(window, token(100))
  assert.equal(priced(window, token(90)).late, undefined)
  const late = priced(window, token(89))
  assert.equal(late.late, true)
  assert.equal(late.cost_per_token, null)
  assert.equal(priced(window, token(100)).tokens_per_second, 300 / 30, 'a late event does not count')
})

test('an event over several GPUs spreads its tokens as integers, the remainder to the lowest index; its price is their sum', () => {
  const window = makeWindow()
  window.observe(sample(0, { gpu_index: 2, price_per_hour_usd: 2 }))
  window.observe(sample(0, { gpu_index: 5, price_per_hour_usd: 4 }))
  const event = token(0, { gpus: [5, 2], prompt_tokens: 7, completion_tokens: 0 })
  delete event.gpu_index
  assert.equal(priced(window, event).cost_per_token, (6 * 30) / 3600 / 7)
  const slots = window.live(T0, 90_000).slots
  assert.deepEqual(slots.map((slot) => [slot.gpu_index, slot.tokens_per_second * 30]).sort(), [
    [2, 4],
    [5, 3],
  ])
  assert.deepEqual(spread(7, 2), [4, 3])
})

test('an event that sums over an interval counts with its share of the window, at the mean rate of the interval', () => {
  const hour = { interval_s: 3600, prompt_tokens: 1_000_000, completion_tokens: 200_000 }
  for (const atSeconds of [3600, 3600.999]) {
    const window = makeWindow()
    window.observe(sample(0, { price_per_hour_usd: 3.6 }))
    const event = priced(window, token(atSeconds, hour))
    // 3.60 USD for 1.2 million tokens; the window begins with a whole second.
    assert.ok(Math.abs(event.cost_per_token! - 3e-6) < 1e-8, String(event.cost_per_token))
    assert.ok(Math.abs(event.tokens_per_second! - 1_200_000 / 3600) < 1)
  }
  const window = makeWindow()
  assert.equal(priced(window, token(10, { interval_s: 5 })).tokens_per_second, 100 / 30, 'all within the window')
  assert.equal(window.live(T0 + 10_000, 90_000).models[0]!.tokens_per_second, 100 / 30)
  assert.equal(window.live(T0 + 36_000, 90_000).models[0]!.tokens_per_second, 80 / 30, 'second 5 has left')
  assert.equal(priced(window, token(20, { interval_s: 3600, prompt_tokens: 0, completion_tokens: 0 })).late, undefined)
})

test('what an interval adds to the past takes no second away that is newer', () => {
  const window = makeWindow()
  for (let second = 0; second <= 40; second++) priced(window, token(second))
  priced(window, token(31, { interval_s: 3600, model: 'long', prompt_tokens: 3600, completion_tokens: 0 }))
  const { models, slots } = window.live(T0 + 40_000, 90_000)
  const inWindow = (one: { tokens_per_second: number }) => Math.round(one.tokens_per_second * 30)
  assert.deepEqual(
    new Map(models.map((one) => [one.model, inWindow(one)])),
    new Map([
      ['long', 20],
      ['m', 3000],
    ]),
  )
  assert.deepEqual(slots.map(inWindow), [3020])
})

test('nothing to divide by gives null, never zero or infinity', () => {
  assert.equal(priced(makeWindow(), token(0, { prompt_tokens: 0, completion_tokens: 0 })).cost_per_token, null)
})

test('the live view runs empty with the wall clock and splits a slot between its models by tokens', () => {
  const window = makeWindow()
  window.observe(sample(0, { price_per_hour_usd: 3.6 }))
  priced(window, token(0, { model: 'a' }))
  priced(window, token(1, { model: 'b', prompt_tokens: 290 }))
  const { models } = window.live(T0 + 1000, 90_000)
  assert.deepEqual(
    models.map(({ model, tokens_per_second }) => [model, tokens_per_second * 30]),
    [
      ['a', 100],
      ['b', 300],
    ],
  )
  assert.equal(models[0]!.cost_per_token, (3.6 * 30) / 3600 / 400)
  assert.equal(window.live(T0 + 32_000, 90_000).models.length, 0)
})

test('the totals are all the money of the fleet over all its tokens: idle GPUs count, silent ones stand beside', () => {
  const window = makeWindow()
  for (const atSeconds of [0, 60]) {
    window.observe(sample(atSeconds, { price_per_hour_usd: 3.6, utilization: 0.75 }))
    window.observe(sample(atSeconds, { gpu_index: 1, price_per_hour_usd: 2, utilization: 0 }))
    window.observe(sample(atSeconds, { gpu_index: 2, price_per_hour_usd: 1 }))
  }
  window.observe(sample(0, { gpu_index: 3, price_per_hour_usd: 8, utilization: 0 }))
  // The clock of this host is an hour ahead.
  window.observe(sample(3660, { host: 'ahead', price_per_hour_usd: 0.4, utilization: 1 }))
  priced(window, token(91, { prompt_tokens: 2990 }))
  const { totals, slots } = window.live(T0 + 91_000, 90_000)
  assert.deepEqual(
    slots.map(({ monitored }) => monitored),
    [true, true, true, false, true],
  )
  const rounded = Object.fromEntries(
    Object.entries(totals).map(([name, value]) => [name, typeof value === 'number' ? Number(value.toFixed(9)) : value]),
  )
  assert.deepEqual(rounded, {
    usd_per_hour: 7,
    busy_usd_per_hour: 4.1,
    idle_usd_per_hour: 2.9,
    uncovered_usd_per_hour: 8,
    tokens_per_second: 100,
    usd_per_million_tokens: Number((7 / 0.36).toFixed(9)),
    usd_per_million_tokens_busy: Number((4.1 / 0.36).toFixed(9)),
    too_few_tokens: false,
  })
  const later = window.live(T0 + 160_000, 90_000)
  assert.equal(later.totals.uncovered_usd_per_hour, 14.6, 'the newest samples are 100 s old')
  assert.deepEqual([later.totals.usd_per_million_tokens, later.totals.usd_per_million_tokens_busy], [null, null])
  // A replay of a year ago has its fleet.
  const past = makeWindow()
  past.observe(sample(0, { price_per_hour_usd: 3.6, utilization: 0 }))
  assert.equal(past.live(T0 + 3e10, 90_000).totals.idle_usd_per_hour, 3.6)
})

test('fewer than 100 tokens in the window are too few for a price, of a slot, a model and the fleet', () => {
  const few = (tokens: number) => {
    const window = makeWindow()
    // Over two slots that have half of it each: the fleet and the model have all.
    const event = token(0, { gpus: [0, 1], prompt_tokens: tokens, completion_tokens: 0 })
    delete event.gpu_index
    priced(window, event)
    const { totals, models, slots } = window.live(T0, 90_000)
    return [...slots, ...models, totals].map(({ too_few_tokens }) => too_few_tokens)
  }
  assert.deepEqual(few(99), [true, true, true, true])
  assert.deepEqual(few(100), [true, true, false, false])
  assert.deepEqual(few(200), [false, false, false, false])
  const { totals, slots } = makeWindow().live(T0, 90_000)
  assert.deepEqual([totals.too_few_tokens, slots], [false, []], 'without tokens there is no figure')
})

test('a window that was rebuilt only from some second on says so on figures that reach further back', () => {
  const window = makeWindow()
  window.knownFrom(T0)
  assert.equal(priced(window, token(28)).partial, true)
  assert.equal(priced(window, token(29)).partial, undefined)
})

test('the only host with a GPU of that index is found; with two there is none', () => {
  const window = makeWindow()
  window.observe(sample(0))
  assert.equal(window.onlyHostWith(0, T0 + 1000, 600_000), 'h')
  assert.equal(window.onlyHostWith(1, T0, 600_000), null)
  assert.equal(window.onlyHostWith(0, T0 + 600_001, 600_000), null, 'not seen in the last ten minutes')
  window.observe(sample(0, { host: 'other' }))
  assert.equal(window.onlyHostWith(0, T0, 600_000), null)
})

test('memory is bounded: the slots seen longest ago make room', () => {
  const window = makeWindow({ maxRings: 100 })
  for (let i = 0; i < 10_000; i++) priced(window, token(i / 1000, { host: `h${i}` }))
  assert.ok(window.slotCount <= 60, `${window.slotCount} slots`)
  for (let i = 0; i < 1000; i++) priced(window, token(20, { host: 'one', model: `m${i}` }))
  assert.ok(window.slotCount <= 60)
})

test('the sum of panes equals the sum of the events, whatever their order within the lateness', () => {
  const seconds = fc.array(fc.integer({ min: 0, max: 120 }), { minLength: 1, maxLength: 80 })
  fc.assert(
    fc.property(seconds, (list) => {
      const window = makeWindow()
      let newest = -1
      const seen: number[] = []
      for (const second of list) {
        const event = priced(window, token(second))
        const isLate = second < newest - 10
        assert.equal(event.late === true, isLate)
        if (isLate) continue
        newest = Math.max(newest, second)
        seen.push(second)
        const expected = seen.filter((one) => one > second - 30 && one <= second).length * 100
        assert.equal(event.tokens_per_second, expected / 30)
      }
    }),
  )
})

test('tokens under another name of a host are those of its slot; names that are joined later leave no slot behind', () => {
  let names: Record<string, string> = {}
  const window = makeWindow({ nameOf: (host) => names[host ?? ''] ?? host })
  window.observe(sample(0, { price_per_hour_usd: 3.6 }))
  window.observe(sample(0, { host: 'H', price_per_hour_usd: 9 }))
  assert.equal(priced(window, token(1, { host: 'H' })).price_per_hour_usd, 9)
  names = { H: 'h' }
  window.forgetJoined()
  assert.equal(window.slotCount, 1)
  assert.equal(priced(window, token(2, { host: 'H' })).cost_per_token, (3.6 * 30) / 3600 / 100)
  assert.equal(priced(window, token(3)).cost_per_token, (3.6 * 30) / 3600 / 200)
  assert.deepEqual(
    window.live(T0 + 3000, 90_000).slots.map(({ host, tokens_per_second }) => [host, tokens_per_second]),
    [['h', 200 / 30]],
  )
  assert.equal(window.onlyHostWith(0, T0 + 3000, 60_000), 'h')
})
