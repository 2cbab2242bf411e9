// One line of `doctor`: what was looked at, whether it is well, and what to do where it is not.

export interface Finding {
  part: string
  /** Null: worth knowing, and not wrong. */
  ok: boolean | null
  message: string
}
