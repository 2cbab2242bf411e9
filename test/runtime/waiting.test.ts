// Waiting ends as soon as its reason does, and leaves neither timers nor listeners behind.

import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { Notifier, settlesWithin, untilAborted } from '../../src/runtime/waiting.ts'

const LONG_MS = 60_000
const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length

test('a promise that settles is not waited for any longer, a rejection counts as settled', async () => {
  const before = timers()
  assert.equal(await settlesWithin(LONG_MS, Promise.resolve()), true)
  assert.equal(await settlesWithin(LONG_MS, Promise.reject(new Error('expected'))), true)
  assert.equal(await settlesWithin(5, new Promise(() => {})), false)
  assert.equal(timers(), before)
})

test('an abort ends the wait for a promise, whatever becomes of it', async () => {
  const stop = new AbortController()
  assert.equal(await untilAborted(Promise.resolve(1), stop.signal), 1)
  await assert.rejects(untilAborted(Promise.reject(new Error('expected')), stop.signal), /expected/)
  const late = Promise.withResolvers<number>()
  const waiting = untilAborted(late.promise, stop.signal)
  stop.abort()
  assert.equal(await waiting, null)
  late.reject(new Error('unhandled, unless it is ignored'))
  assert.equal(await untilAborted(new Promise(() => {}), stop.signal), null)
  assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
})

test('a notifier wakes its waiter, keeps a notification that comes first, and ends with the signal', async () => {
  const before = timers()
  const notifier = new Notifier()
  const stop = new AbortController()
  const waiting = notifier.wait(LONG_MS, stop.signal)
  notifier.notify()
  await waiting
  notifier.notify()
  await notifier.wait(LONG_MS)
  await notifier.wait(1, stop.signal)
  const endless = notifier.wait(Number.POSITIVE_INFINITY, stop.signal)
  stop.abort()
  await endless
  await notifier.wait(LONG_MS, stop.signal)
  assert.equal(timers(), before)
  assert.equal(getEventListeners(stop.signal, 'abort').length, 0)
})
