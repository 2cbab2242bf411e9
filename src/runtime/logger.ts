// The interface of a logger; pino's loggers implement it. Silent in normal operation: info is lifecycle, warn is
// unusual but without loss, error is loss, or a fault that an operator must repair.

/** Writes one line: fields first, then the message. */
type Write = (fields: object, message: string) => void

export interface Logger {
  debug: Write
  info: Write
  warn: Write
  error: Write
}
