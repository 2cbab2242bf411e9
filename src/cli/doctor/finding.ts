// One line of `doctor`: what was checked, whether it is well, and what to do where it is not.

export interface Finding {
  part: string
  /** Null: worth knowing, but not wrong. */
  ok: boolean | null
  message: string
}
