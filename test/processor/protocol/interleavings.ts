// Explores every order in which a few actors (processors' steps, keepers' passes) can make their calls to one real
// store. Actors are ordinary async code on a puppet store: each call that could matter waits until the explorer
// releases it. A state is the content of the store and the results that each actor has received; the explorer goes
// depth first, restores the store to a state's content, lets one actor make its call, and never continues from a state
// twice. An actor is brought to a state by running it again on the results that it received. A crash needs no step of
// its own: an actor that is never released again has crashed, so what must hold after a crash is checked in every state
// (`check`).

import type { LedgerStore } from '../../../src/store/ledger-store.ts'
import type { SqliteStore } from '../../../src/store/sqlite/sqlite-store.ts'
import type { Store } from '../ledger/ledger-place.ts'

/** What an actor does, in phases: from one to the next it remembers nothing. It may talk to nothing but the store. */
export interface Actor {
  name: string
  phases: ((store: Store) => Promise<void>)[]
}

export interface Call {
  method: string
  args: unknown[]
}

/** Calls that are made at once, without a state of their own: their results do not change during an exploration. */
const CONSTANT = ['readRevisions', 'readBooks', 'readDayStates', 'rawRange']
/** Calls that change the store. */
const WRITES = ['writeDocuments', 'insertMarks', 'deleteMarks', 'replaceBuckets']
const STREAMS = ['readBuckets', 'readLedgerSamples']

/** A store whose calls go through `ask`; streams are asked for as a whole. */
export function puppetStore(ask: (call: Call) => Promise<unknown>): Store {
  const methodOf = (method: string) => {
    if (!STREAMS.includes(method)) return (...args: unknown[]) => ask({ method, args })
    return async function* (...args: unknown[]) {
      yield* (await ask({ method, args })) as unknown[]
    }
  }
  const ledger = new Proxy({}, { get: (_, method: string) => methodOf(method) }) as LedgerStore
  return new Proxy({}, { get: (_, method: string) => (method === 'ledger' ? ledger : methodOf(method)) }) as Store
}

/** Makes a call to the real store. */
export async function makeCall(store: Store, { method, args }: Call): Promise<unknown> {
  const part = (method in store.ledger ? store.ledger : store) as unknown as Record<
    string,
    (...all: unknown[]) => unknown
  >
  const answer = part[method]!(...args)
  if (!STREAMS.includes(method)) return await answer
  const all: unknown[] = []
  for await (const one of answer as AsyncIterable<unknown>) all.push(one)
  return all
}

interface ActorState {
  actor: Actor
  phase: number
  results: unknown[]
  /** Identifies phase and results. */
  id: string
  /** The call that waits; null when the actor is done. */
  next: Call | null
}

interface State {
  /** The tables that change, as JSON each. */
  content: readonly string[]
  actors: ActorState[]
}

export interface Exploration {
  states: number
  /** Contents of the store, with who was unfinished, that were checked. */
  checked: number
  /** What `check` found wrong first, and the calls that led there. */
  found: { problem: string; calls: string[] } | null
}

/**
 * Explores all orders from the present content of the store. `check` is called on a store in each content that can be
 * reached, with the names of the actors that are not done; it may change the store, and returns what is wrong or null.
 */
export class Interleavings {
  readonly #store: SqliteStore
  readonly #constant: ReadonlySet<string>
  readonly #mutate: (store: Store) => Store
  /** What the store holds now; empty where that is not known. */
  #content: readonly string[] = []
  #random = 42

  constructor(store: SqliteStore, options: { constant?: string[]; mutate?: (store: Store) => Store } = {}) {
    this.#store = store
    this.#constant = new Set([...CONSTANT, ...(options.constant ?? [])])
    this.#mutate = options.mutate ?? ((same) => same)
  }

  async explore(
    actors: readonly Actor[],
    check: (unfinished: string[]) => Promise<string | null>,
  ): Promise<Exploration> {
    const seen = new Set<string>()
    const checked = new Set<string>()
    const start = this.#read()
    const first: State = { content: start, actors: [] }
    for (const actor of actors)
      first.actors.push(await this.#advance({ actor, phase: 0, results: [], id: '', next: null }))
    const stack: { state: State; calls: string[] }[] = [{ state: first, calls: [] }]
    const result = (found: Exploration['found']) => ({ states: seen.size, checked: checked.size, found })
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      const { state, calls } = node
      const key = [...state.content, ...state.actors.map((actor) => `${actor.phase} ${actor.id}`)].join('\n')
      if (seen.has(key)) continue
      seen.add(key)
      const unfinished = state.actors.filter(({ next }) => next !== null).map(({ actor }) => actor.name)
      const question = [...state.content, ...unfinished.filter((name) => name.startsWith('processor'))].join('\n')
      if (!checked.has(question)) {
        checked.add(question)
        await this.#restore(state.content)
        const problem = await check(unfinished)
        this.#content = []
        if (problem !== null) return result({ problem, calls })
      }
      for (const i of this.#shuffled(state.actors.keys())) {
        const before = state.actors[i]!
        if (before.next === null) continue
        await this.#restore(state.content)
        const returned = await makeCall(this.#store, before.next)
        const results = [...before.results, returned]
        const moved = await this.#advance({ ...before, results, id: `${before.id};${jsonOf(returned)}` })
        if (WRITES.includes(before.next.method)) this.#content = this.#read()
        const child = { content: this.#content, actors: state.actors.with(i, moved) }
        stack.push({ state: child, calls: [...calls, `${before.actor.name} ${before.next.method}`] })
      }
    }
    return result(null)
  }

  /** In an order that is always the same and favours no actor: a fault is found sooner, all states are seen anyway. */
  #shuffled(indexes: Iterable<number>): number[] {
    const ranked = [...indexes].map((index) => {
      this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0
      return { index, rank: this.#random }
    })
    return ranked.sort((a, b) => a.rank - b.rank).map(({ index }) => index)
  }

  /** Runs an actor on its results up to the next call that has to wait; calls with constant results are made. */
  async #advance(state: ActorState): Promise<ActorState> {
    let { phase, results, id } = state
    for (; phase < state.actor.phases.length; phase++, results = [], id = '') {
      for (;;) {
        const next = await this.#nextCall(state.actor.phases[phase]!, results)
        if (next === null) break
        if (!this.#constant.has(next.method)) return { ...state, phase, results, id, next }
        results = [...results, await makeCall(this.#store, next)]
      }
    }
    return { ...state, phase, results, id, next: null }
  }

  #nextCall(phase: (store: Store) => Promise<void>, results: readonly unknown[]): Promise<Call | null> {
    const { promise, resolve, reject } = Promise.withResolvers<Call | null>()
    let used = 0
    const ask = (call: Call): Promise<unknown> => {
      if (used < results.length) return Promise.resolve(results[used++])
      resolve(call)
      return new Promise(() => {})
    }
    phase(this.#mutate(puppetStore(ask))).then(() => resolve(null), reject)
    return promise
  }

  #read(): string[] {
    const { file } = this.#store
    return file.use('Reading all tables failed', () =>
      TABLES.map((table) => JSON.stringify(file.all(`SELECT rowid, * FROM ${table} ORDER BY rowid`))),
    )
  }

  async #restore(content: readonly string[]): Promise<void> {
    if (content === this.#content) return
    const now = this.#content.length === 0 ? this.#read() : this.#content
    const { file } = this.#store
    await file.transaction('Restoring tables failed', () => {
      for (const [i, table] of TABLES.entries()) {
        if (content[i] === now[i]) continue
        file.run(`DELETE FROM ${table}`)
        for (const row of JSON.parse(content[i]!) as Record<string, null | number | string>[]) {
          // The marks' own id is their rowid.
          const columns = Object.keys(row).filter((name) => name !== 'rowid' || table !== 'marks')
          const sql = `INSERT INTO ${table} (${columns}) VALUES (${columns.map(() => '?')})`
          file.run(sql, ...columns.map((name) => row[name]!))
        }
      }
    })
    this.#content = content
  }
}

/** What an exploration changes; `sqlite_sequence` holds the last id of a mark. */
const TABLES = ['gpu_metrics', 'token_usage', 'marks', 'cost_ledger', 'sqlite_sequence']

function jsonOf(value: unknown): string {
  const plain = (_: string, one: unknown) => (one instanceof Map ? [...one] : typeof one === 'bigint' ? `${one}n` : one)
  return JSON.stringify(value, plain) ?? ''
}
