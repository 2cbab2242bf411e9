// Something that is read from files and follows them while the server runs: the API tokens, the certificate. The files are
// looked at once a second, by inode, size and times: not every file system tells of changes, and a rename or a config
// map's swapped link is a change as well. What cannot be used leaves the last good one in force, and says so loudly: in
// the log and in /health, until it is corrected.

import { statSync } from 'node:fs'
import type { Logger } from './logger.ts'

const LOOK_MS = 1000

/** Something that is wrong, for /health. */
export interface FileProblem {
  code: string
  message: string
  since: string
}

export interface WatchedFileOptions<T> {
  /** Stable code of its problem in /health. */
  code: string
  /** What it is, for people: `API tokens`. */
  what: string
  paths: readonly string[]
  /** Reads the files; throws an Error that says what is wrong and what was expected. */
  read(): T
  logger: Logger
}

export class WatchedFile<T> {
  readonly #options: WatchedFileOptions<T>
  #value: T
  #problem: FileProblem | null = null
  /** State of the files that the value or the problem is of. */
  #settled: string
  /** State of the files that could not be used at the last look. */
  #unsettled = ''
  #timer: NodeJS.Timeout | undefined

  /** Reads the files for the first time; throws what `read` throws. */
  constructor(options: WatchedFileOptions<T>) {
    this.#options = options
    this.#settled = stateOf(options.paths)
    this.#value = options.read()
  }

  /** The last good one. */
  get value(): T {
    return this.#value
  }

  /** Why the files as they are now cannot be used; null when they can. */
  get problem(): FileProblem | null {
    return this.#problem
  }

  /** Follows the files until `close`; `onChange` gets each new value. */
  watch(onChange: (value: T) => void = () => {}): void {
    this.#timer ??= setInterval(() => this.look(onChange), LOOK_MS).unref()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Looks at the files now. */
  look(onChange: (value: T) => void = () => {}): void {
    const { code, what, paths, read, logger } = this.#options
    const state = stateOf(paths)
    if (state === this.#settled) return
    try {
      this.#value = read()
    } catch (error) {
      // A writer may be in the middle of it: it is told when it is still so at the next look.
      if (state === this.#unsettled) {
        const { message } = error as Error
        this.#settled = state
        this.#problem = {
          code,
          message: `${message}; the ${what} before stay in force`,
          since: new Date().toISOString(),
        }
        logger.error({ paths }, this.#problem.message)
      }
      this.#unsettled = state
      return
    }
    this.#settled = state
    this.#problem = null
    logger.info({ paths }, `Changed ${what} are in force`)
    onChange(this.#value)
  }
}

/** Text that changes when one of the files does. */
function stateOf(paths: readonly string[]): string {
  const states = paths.map((path) => {
    // Whatever keeps the file from being looked at also keeps it from being read, and `read` says it.
    try {
      const { ino, size, mtimeMs, ctimeMs } = statSync(path)
      return `${ino} ${size} ${mtimeMs} ${ctimeMs}`
    } catch {
      return 'absent'
    }
  })
  return states.join(', ')
}
