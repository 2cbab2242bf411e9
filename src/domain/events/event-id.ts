// The deterministic `_id` of an event's document: the same event gives the same id whoever writes it and however
// often, so that writing twice is a no-op. An event's own id comes first, scoped by its host or CloudEvents source and
// length-prefixed, so that ("ab","c") and ("a","bc") differ; an event without host is scoped by its GPUs and engine,
// since two producers that both count from 1 are no duplicates of each other. Else the place in the log names it: the
// topic's id (a topic deleted and recreated starts at offset 0 again), partition, offset, and the CRC-32 of the bytes
// (a broker that lost its tail reuses offsets). Ids of pertoken start with `pt`: documents with other ids are not ours
// and stay untouched.

/** What all ids of ours start with; the digit is the format. */
export const ID_PREFIX = 'pt1'
/** The first string after all ids of ours: the upper bound of a range over them. */
export const ID_PREFIX_END = 'pt2'

/** Id of an event that brings its own: `scope` is its host, or `ce:` + the CloudEvents source. */
export function ownEventId(scope: string, id: string): string {
  return `${ID_PREFIX}e:${scope.length}:${scope}:${id}`
}

/**
 * Id of an event that brings its own but names no host; `gpus` in ascending order. It sorts before the ids of events
 * with a host: of two samples of one instant the one with a host is the latest.
 */
export function hostlessEventId(gpus: readonly number[], engine: string | undefined, id: string): string {
  const scope = engine === undefined ? gpus.join(',') : `${gpus.join(',')}:${engine}`
  return `${ID_PREFIX}d:${scope.length}:${scope}:${id}`
}

/** What the ids of a partition's records have in common; `topicId` is the log's own id of the topic, not its name. */
export function logIdPrefix(place: { topicId: string; partition: number }): string {
  return `${ID_PREFIX}l:${place.topicId}:${place.partition}:`
}

/** Id of a record's event from its place in the log: its partition's prefix, its offset and the CRC-32 of its bytes. */
export function logEventId(prefix: string, offset: number, crc32: number): string {
  return `${prefix}${offset}:${crc32}`
}

/** Whether a document with this `_id` was written by pertoken. */
export function isOwnId(id: unknown): boolean {
  return typeof id === 'string' && id.startsWith(ID_PREFIX)
}
