// The little of a logger that the parts need; pino's loggers fit. Silent when well: info is lifecycle, warn is odd but
// nothing lost, error is loss or a human needed.

/** Writes one line: fields first, then the message. */
type Write = (fields: object, message: string) => void

export interface Logger {
  debug: Write
  info: Write
  warn: Write
  error: Write
}
