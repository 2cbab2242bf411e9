// The agent's first half: reads every GPU at a steady pace and puts the samples into the spool. It waits for the spool's
// disk, never for the network. A reading that takes longer than the pace makes it skip beats, not queue them; a reading
// that fails is said and tried again at the next beat.

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { untilAborted } from '../runtime/waiting.ts'
import type { AgentState } from './agent-state.ts'
import type { GpuReading, GpuSource } from './gpu/gpu-source.ts'
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

/** Two clocks: the wall's, which people set, and one that only goes forward. Both in milliseconds. */
export interface Clock {
  wallMs(): number
  steadyMs(): number
}

const SYSTEM_CLOCK: Clock = { wallMs: () => Date.now(), steadyMs: () => performance.now() }
/** A step back of the clock that is worth a word; time services correct less without steps. */
const STEP_MS = 1000
/** How long /health names a step. */
const STEP_SHOWN_MS = 60_000

/** Samples until the signal aborts; resolves when the last samples are in the spool. */
export async function runSampler(options: SamplerOptions): Promise<void> {
  const { source, state, signal, intervalMs, clock = SYSTEM_CLOCK } = options
  const makeSamples = sampleMaker({ ...options.settings, source: source.name })
  const watchClock = clockWatch(clock, state)
  const startedMs = clock.steadyMs()
  while (!signal.aborted) {
    watchClock()
    const readings = await read(options)
    if (readings !== null) await keep(options, makeSamples(readings, clock.wallMs()))
    const elapsedMs = clock.steadyMs() - startedMs
    const untilBeatMs = intervalMs - (elapsedMs % intervalMs)
    await sleep(untilBeatMs, undefined, { signal }).catch(() => {})
  }
}

/** Makes the samples of readings, each with an id of its own: a random name of this run and a counter without gaps. */
export function sampleMaker(
  settings: SampleSettings,
  run = randomBytes(8).toString('hex'),
): (readings: readonly GpuReading[], nowMs: number) => AgentSample[] {
  let count = 0
  return (readings, nowMs) =>
    readings.map((reading) => toSample(reading, settings, { eventId: `agent-${run}-${count++}`, nowMs }))
}

/** One reading; null when it failed or the agent was told to stop meanwhile. */
async function read({ source, state, signal, clock = SYSTEM_CLOCK }: SamplerOptions): Promise<GpuReading[] | null> {
  try {
    const readings = await untilAborted(source.read(), signal)
    if (readings === null) return null
    state.counters.read += readings.length
    state.gpus = readings.length
    state.lastReadMs = clock.wallMs()
    state.report('source', source.faults)
    return readings
  } catch (error) {
    state.counters.readFailures += 1
    state.gpus = 0
    state.report('source', [...new Set([(error as Error).message, ...source.faults])])
    return null
  }
}

async function keep({ spool, state }: SamplerOptions, samples: readonly AgentSample[]): Promise<void> {
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

/** Says when the wall's clock was set back: times of samples then repeat, which their ids survive. */
function clockWatch(clock: Clock, state: AgentState): () => void {
  let offsetMs = clock.wallMs() - clock.steadyMs()
  let steppedAtMs = Number.NEGATIVE_INFINITY
  return () => {
    const nowOffsetMs = clock.wallMs() - clock.steadyMs()
    const stepMs = nowOffsetMs - offsetMs
    offsetMs = nowOffsetMs
    if (stepMs <= -STEP_MS) {
      steppedAtMs = clock.steadyMs()
      state.counters.clockSteps += 1
      const message = `The clock was set back by ${(-stepMs / 1000).toFixed(1)} s: samples carry the new time, none is lost`
      state.report('clock', [message])
    } else if (clock.steadyMs() - steppedAtMs > STEP_SHOWN_MS) state.report('clock', [])
  }
}
