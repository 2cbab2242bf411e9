// What a keeper has done since it started, counted; shown by /health and /metrics.

export class KeeperCounters {
  cellsComputed = 0
  cellsReplaced = 0
  /** Hours and days that were computed. */
  sumsComputed = 0
  /** Spans that another keeper replaced first; their marks stay, so they are computed again. */
  racesLost = 0
  marksDeleted = 0
  /** Marks of frozen days, which are never computed again. */
  marksDropped = 0
  /** Runs and spans that could not be computed, and were put off. */
  failures = 0
  /** Names that went into `other` by the book's limits, over all computed cells. */
  namesCapped = 0
}
