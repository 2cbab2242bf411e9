// Every order in which a few actors (processors' steps, keepers' passes) can make their calls to one real store. Actors
// are ordinary async code on a store that is a puppet: each call that could matter waits until the explorer lets it go. A
// state is the content of the store and what each actor has been told so far; the explorer goes depth first, puts the
// store back to a state's content, lets one actor make its call, and never goes on from a state twice. An actor comes to
// where it was by being run anew on the answers that it got. A crash needs no step of its own: an actor that is never
// let go again has crashed, so what must hold after a crash is asked of every state (`check`).

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

/** Calls that are made at once, without a state of their own: their answers do not change during an exploration. */
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
  answers: unknown[]
  /** Stands for phase and answers. */
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
 * reached, with the names of the actors that are not done; it may change the store, and answers what is wrong or null.
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
      first.actors.push(await this.#goOn({ actor, phase: 0, answers: [], id: '', next: null }))
    const stack: { state: State; calls: string[] }[] = [{ state: first, calls: [] }]
    const result = (found: Exploration['found']) => ({ states: seen.size, checked: checked.size, found })
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      const { state, calls } = node
      const key = [...state.content, ...state.actors.map((one) => `${one.phase} ${one.id}`)].join('\n')
      if (seen.has(key)) continue
      seen.add(key)
      const unfinished = state.actors.filter((one) => one.next !== null).map((one) => one.actor.name)
      const question = [...state.content, ...unfinished.filter((name) => name.startsWith('processor'))].join('\n')
      if (!checked.has(question)) {
        checked.add(question)
        await this.#restore(state.content)
        const problem = await check(unfinished)
        this.#content = []
        if (problem !== null) return result({ problem, calls })
      }
      for (const i of this.#shuffled(state.actors.keys())) {
        const one = state.actors[i]!
        if (one.next === null) continue
        await this.#restore(state.content)
        const answer = await makeCall(this.#store, one.next)
        const told = { ...one, answers: [...one.answers, answer], id: `${one.id};${jsonOf(answer)}` }
        const moved = await this.#goOn(told)
        if (WRITES.includes(one.next.method)) this.#content = this.#read()
        const child = { content: this.#content, actors: state.actors.with(i, moved) }
        stack.push({ state: child, calls: [...calls, `${one.actor.name} ${one.next.method}`] })
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

  /** Runs an actor on its answers up to the next call that has to wait; calls with constant answers are made. */
  async #goOn(state: ActorState): Promise<ActorState> {
    let { phase, answers, id } = state
    for (; phase < state.actor.phases.length; phase++, answers = [], id = '') {
      for (;;) {
        const next = await this.#nextCall(state.actor.phases[phase]!, answers)
        if (next === null) break
        if (!this.#constant.has(next.method)) return { ...state, phase, answers, id, next }
        answers = [...answers, await makeCall(this.#store, next)]
      }
    }
    return { ...state, phase, answers, id, next: null }
  }

  #nextCall(phase: (store: Store) => Promise<void>, answers: readonly unknown[]): Promise<Call | null> {
    const { promise, resolve, reject } = Promise.withResolvers<Call | null>()
    let told = 0
    const ask = (call: Call): Promise<unknown> => {
      if (told < answers.length) return Promise.resolve(answers[told++])
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
