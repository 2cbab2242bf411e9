// Files that are followed while the process runs: API tokens, certificates, the price book. They are polled, by inode,
// size and times: not every file system reports changes, and a rename or a config map's swapped link is a change as
// well. FileChanges detects changes. WatchedFile holds the value read from the files: files that cannot be used leave
// the last good value effective, and the fault is reported in the log and in /health until it is corrected.

import { statSync } from 'node:fs'
import type { Logger } from './logger.ts'

/** Time between two looks at the files, milliseconds. */
export const LOOK_INTERVAL_MS = 1000

/** `changing`: different from the last look, a writer may be in the middle of it; `settled`: the same as then. */
type FileChange = 'none' | 'changing' | 'settled'

/** Detects changes of files that have not been handled yet; at first their mere presence or absence. */
export class FileChanges {
  readonly #paths: readonly string[]
  #state = ''
  #handledState = ''

  constructor(paths: readonly string[]) {
    this.#paths = paths
  }

  look(): FileChange {
    const before = this.#state
    this.#state = this.#paths.map(stateOf).join(', ')
    if (this.#state === this.#handledState) return 'none'
    return this.#state === before ? 'settled' : 'changing'
  }

  /** The state of the last look is handled: it was read, or its fault was reported. */
  markHandled(): void {
    this.#handledState = this.#state
  }
}

/** Text that changes when the file, or the file that a link names, is replaced or written. */
function stateOf(path: string): string {
  try {
    const { ino, size, mtimeMs, ctimeMs } = statSync(path)
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`
  } catch {
    // What prevents stat also prevents reading the file, and the reader reports it.
    return 'absent'
  }
}

/** Why files cannot be used, for /health. */
export interface FileFault {
  code: string
  message: string
  since: string
}

export interface WatchedFileOptions<T> {
  /** Stable code of the fault in /health. */
  code: string
  /** What the files hold, in messages: `API tokens`. */
  what: string
  paths: readonly string[]
  /** Reads the files; throws an Error that names the fault and what was expected. */
  read(): T
  logger: Logger
}

export class WatchedFile<T> {
  readonly #options: WatchedFileOptions<T>
  readonly #changes: FileChanges
  #value: T
  #fault: FileFault | null = null
  #timer: NodeJS.Timeout | undefined

  /** Reads the files for the first time; throws what `read` throws. */
  constructor(options: WatchedFileOptions<T>) {
    this.#options = options
    this.#changes = new FileChanges(options.paths)
    this.#changes.look()
    this.#value = options.read()
    this.#changes.markHandled()
  }

  /** The last good value. */
  get value(): T {
    return this.#value
  }

  /** Why the files as they are now cannot be used; null when they can. */
  get fault(): FileFault | null {
    return this.#fault
  }

  /** Follows the files until `close`; `onChange` receives each new value. */
  watch(onChange: (value: T) => void = () => {}): void {
    this.#timer ??= setInterval(() => this.look(onChange), LOOK_INTERVAL_MS).unref()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Looks at the files now. A fault is reported at the second look at the same files: a writer may need a moment. */
  look(onChange: (value: T) => void = () => {}): void {
    const { code, what, paths, read, logger } = this.#options
    const change = this.#changes.look()
    if (change === 'none') return
    try {
      this.#value = read()
    } catch (error) {
      if (change === 'changing') return
      this.#changes.markHandled()
      const message = `${(error as Error).message}; the ${what} before stay in force`
      this.#fault = { code, message, since: new Date().toISOString() }
      logger.error({ paths }, message)
      return
    }
    this.#changes.markHandled()
    this.#fault = null
    logger.info({ paths }, `Changed ${what} are in force`)
    onChange(this.#value)
  }
}
