// The agent's first half: reads every GPU at a fixed interval and puts the samples into the spool. It waits for the
// spool's disk, never for the network. A reading that takes longer than the interval makes it skip ticks, not queue
// them; a reading that fails is reported and tried again at the next tick.

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { untilAborted } from '../runtime/waiting.ts'
import type { AgentState } from './agent-state.ts'
import type { GpuReading, GpuSource } from './gpu/gpu-source.ts'
import { repeatFilter } from './gpu/repeat-filter.ts'
import { type AgentSample, type SampleSettings, toSample } from './gpu-sample.ts'
import type { Spool } from './spool.ts'

export interface SamplerOptions {
  source: GpuSource
  spool: Pick<Spool, 'add'>
  state: AgentState
  settings: Omit<SampleSettings, 'source'>
  intervalMs: number
  signal: AbortSignal
  clock?: Clock
}

/** The wall clock, which may be set, and a monotonic clock; both in milliseconds. */
export interface Clock {
  wallMs(): number
  monotonicMs(): number
}

const SYSTEM_CLOCK: Clock = { wallMs: () => Date.now(), monotonicMs: () => performance.now() }
/** A backward step of the clock that is reported; time services correct less without steps. */
const STEP_MS = 1000
/** How long /health reports a step. */
const STEP_SHOWN_MS = 60_000

/** Samples until the signal aborts; resolves when the last samples are in the spool. */
export async function runSampler(options: SamplerOptions): Promise<void> {
  const { source, state, signal, intervalMs, clock = SYSTEM_CLOCK } = options
  const makeSamples = sampleMaker({ ...options.settings, source: source.name })
  const isWorthSampling = source.repeats === true ? repeatFilter(() => clock.monotonicMs()) : () => true
  const watchClock = clockWatch(clock, state)
  const startedMs = clock.monotonicMs()
  while (!signal.aborted) {
    watchClock()
    const readings = await read(options)
    if (readings !== null && isWorthSampling(readings)) await store(options, makeSamples(readings, clock.wallMs()))
    const elapsedMs = clock.monotonicMs() - startedMs
    const untilTickMs = intervalMs - (elapsedMs % intervalMs)
    await sleep(untilTickMs, undefined, { signal }).catch(() => {})
  }
}

/**
 * Returns a function that makes the samples of readings; their ids are a random name of this run and a gapless counter.
 */
export function sampleMaker(
  settings: SampleSettings,
  run = randomBytes(8).toString('hex'),
): (readings: readonly GpuReading[], nowMs: number) => AgentSample[] {
  let count = 0
  return (readings, nowMs) =>
    readings.map((reading) => toSample(reading, settings, { eventId: `agent-${run}-${count++}`, nowMs }))
}

/** One reading; null when it failed, or the signal aborted meanwhile. */
async function read({ source, state, signal, clock = SYSTEM_CLOCK }: SamplerOptions): Promise<GpuReading[] | null> {
  try {
    const readings = await untilAborted(source.read(), signal)
    if (readings === null) return null
    state.counters.read += readings.length
    state.gpus = readings.length
    state.gpuIndexes = readings.map(({ gpuIndex }) => gpuIndex)
    state.lastReadMs = clock.wallMs()
    state.report('source', source.faults)
    state.note(source.notices ?? [])
    return readings
  } catch (error) {
    state.counters.readFailures += 1
    state.gpus = 0
    state.report('source', [...new Set([(error as Error).message, ...source.faults])])
    return null
  }
}

async function store({ spool, state }: SamplerOptions, samples: readonly AgentSample[]): Promise<void> {
  try {
    await spool.add(
      'gpu',
      samples.map((sample) => ({ key: sample.host!, value: Buffer.from(JSON.stringify(sample)) })),
    )
    state.counters.spooled += samples.length
    state.report('spool', [])
  } catch (error) {
    state.counters.unspooled += samples.length
    state.report('spool', [`Samples are lost, the spool does not take them: ${(error as Error).message}`], 'error')
  }
}

/** Reports when the wall clock was set back: times of samples then repeat, but not their ids. */
function clockWatch(clock: Clock, state: AgentState): () => void {
  let offsetMs = clock.wallMs() - clock.monotonicMs()
  let steppedAtMs = Number.NEGATIVE_INFINITY
  return () => {
    const nowOffsetMs = clock.wallMs() - clock.monotonicMs()
    const stepMs = nowOffsetMs - offsetMs
    offsetMs = nowOffsetMs
    if (stepMs <= -STEP_MS) {
      steppedAtMs = clock.monotonicMs()
      state.counters.clockSteps += 1
      const message = `The clock was set back by ${(-stepMs / 1000).toFixed(1)} s: samples carry the new time, none is lost`
      state.report('clock', [message])
    } else if (clock.monotonicMs() - steppedAtMs > STEP_SHOWN_MS) state.report('clock', [])
  }
}
