// The tables of the embedded store and their format number. An event table has the columns that queries and the
// ledger's grouping need, and `body`, the document as JSON without `_id` and `ts`. Tables keep SQLite's rowid and a
// unique index on `_id`: measured 25 % faster to write than a table clustered on the text id, which every index would
// repeat. `slots` names each slot's newest sample (host '' is null): an index over host and gpu_index would be written
// to in as many pages as there are slots, and cost as much as the rest of a write. `counters` holds the sizes of the
// event tables, since counting rows is a scan; deletions update it in the same transaction. The longest column of
// `cost_ledger` is the last: those before it are read without it.

import { reachMinutes, TouchedCells } from '../../domain/ledger/buckets.ts'
import { StoreError } from '../event-store.ts'
import { CHUNK_ROWS, type StoreDatabase } from './store-database.ts'

/** The format that this version reads and writes. */
const FORMAT = 3

const TABLES = `
  CREATE TABLE IF NOT EXISTS gpu_metrics (
    _id TEXT NOT NULL UNIQUE, ts INTEGER NOT NULL, host TEXT, gpu_index INTEGER NOT NULL, body TEXT NOT NULL);
  CREATE INDEX IF NOT EXISTS gpu_metrics_ts ON gpu_metrics (ts);
  CREATE TABLE IF NOT EXISTS slots (
    host TEXT NOT NULL, gpu_index INTEGER NOT NULL, ts INTEGER NOT NULL, sample_id TEXT NOT NULL,
    PRIMARY KEY (host, gpu_index)) WITHOUT ROWID;

  CREATE TABLE IF NOT EXISTS token_usage (
    _id TEXT NOT NULL UNIQUE, ts INTEGER NOT NULL, host TEXT, gpu_index INTEGER, gpus TEXT, model TEXT NOT NULL,
    tenant TEXT, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    cached_prompt_tokens INTEGER NOT NULL, requests INTEGER NOT NULL, body TEXT NOT NULL,
    reach INTEGER NOT NULL DEFAULT 0);
  CREATE INDEX IF NOT EXISTS token_usage_ts ON token_usage (ts);
  CREATE INDEX IF NOT EXISTS token_usage_model ON token_usage (model, ts);

  CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
  INSERT OR IGNORE INTO counters VALUES ('gpu_metrics', 0), ('token_usage', 0);

  CREATE TABLE IF NOT EXISTS marks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, level TEXT NOT NULL, start_ms INTEGER NOT NULL, host TEXT,
    at_ms INTEGER NOT NULL);
  CREATE INDEX IF NOT EXISTS marks_span ON marks (level, start_ms, at_ms);

  CREATE TABLE IF NOT EXISTS cost_ledger (
    _id TEXT NOT NULL UNIQUE, level TEXT NOT NULL, start_ms INTEGER NOT NULL, host TEXT, rev INTEGER NOT NULL,
    book_versions TEXT NOT NULL, capped INTEGER NOT NULL, computed_ms INTEGER NOT NULL,
    model_sums TEXT, tenant_sums TEXT, rows TEXT NOT NULL);

  CREATE TABLE IF NOT EXISTS price_book (
    kind TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, number)) WITHOUT ROWID;

  CREATE TABLE IF NOT EXISTS day_states (
    start_ms INTEGER PRIMARY KEY, state TEXT NOT NULL, since_ms INTEGER NOT NULL);

  CREATE TABLE IF NOT EXISTS positions (
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, topic_id TEXT NOT NULL,
    offset INTEGER NOT NULL, PRIMARY KEY (group_name, topic, partition, topic_id)) WITHOUT ROWID;

  CREATE TABLE IF NOT EXISTS dead_letters (
    _id TEXT NOT NULL UNIQUE, reason TEXT NOT NULL, message TEXT NOT NULL, topic TEXT NOT NULL,
    topic_id TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, record_ms INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, key BLOB, value BLOB, value_length INTEGER NOT NULL, value_sha256 TEXT NOT NULL,
    headers TEXT NOT NULL, redriven_ms INTEGER);
  CREATE INDEX IF NOT EXISTS dead_letters_time ON dead_letters (time_ms, _id);
`

/** What format 2 adds to 1: totals of the rows, for queries that name no GPU. */
const ADD_TOTALS =
  'ALTER TABLE cost_ledger ADD COLUMN model_sums TEXT; ALTER TABLE cost_ledger ADD COLUMN tenant_sums TEXT'
/** What format 3 adds to 2: the minutes before its own that a token event reaches (`reachMinutes`). */
const ADD_REACH = 'ALTER TABLE token_usage ADD COLUMN reach INTEGER NOT NULL DEFAULT 0'
/** Only events of several minutes are in it: `ts` alone does not lead to these. */
const REACH_INDEX = 'CREATE INDEX IF NOT EXISTS token_usage_reach ON token_usage (reach, ts) WHERE reach > 0'

/** Creates what is missing; throws when the file was made by a newer pertoken. */
export async function prepareSchema(file: StoreDatabase): Promise<{ warnings: string[] }> {
  await file.transaction('Preparing the store failed', () => {
    file.exec('CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID')
    const format = file.get<{ value: number }>("SELECT value FROM meta WHERE name = 'format'")?.value ?? 0
    if (format > FORMAT) {
      throw new StoreError(
        `Preparing the store failed: "${file.path}" has format ${format}, newer than ${FORMAT}, install a newer pertoken`,
        { retriable: false },
      )
    }
    file.exec(TABLES)
    if (!hasColumn(file, 'cost_ledger', 'model_sums')) file.exec(ADD_TOTALS)
    const isReachNew = !hasColumn(file, 'token_usage', 'reach')
    if (isReachNew) file.exec(ADD_REACH)
    file.exec(REACH_INDEX)
    if (isReachNew) setReach(file)
    if (format < FORMAT) file.run("INSERT OR REPLACE INTO meta (name, value) VALUES ('format', ?)", FORMAT)
  })
  return { warnings: [] }
}

function hasColumn(file: StoreDatabase, table: string, column: string): boolean {
  return file.all<{ name: string }>(`PRAGMA table_info(${table})`).some(({ name }) => name === column)
}

interface IntervalRow {
  rowid: number
  ts: number
  host: string | null
  interval_s: number
}

/** Fills in the reach of events that an older pertoken wrote, and marks the cells that they are counted in now. */
function setReach(file: StoreDatabase): void {
  const sql = `SELECT rowid, ts, host, json_extract(body, '$.interval_s') AS interval_s FROM token_usage
    WHERE rowid > ? AND body LIKE '%"interval_s":%' AND json_type(body, '$.interval_s') IN ('integer', 'real')
    ORDER BY rowid LIMIT ${CHUNK_ROWS}`
  const cells = new TouchedCells()
  for (let after = -1; ; ) {
    const rows = file.all<IntervalRow>(sql, after)
    for (const { rowid, host, ts, interval_s } of rows) {
      const event = { host, interval_s, ts: new Date(ts) }
      const reach = reachMinutes(event)
      if (reach === 0) continue
      file.run('UPDATE token_usage SET reach = ? WHERE rowid = ?', reach, rowid)
      cells.touchToken(event)
      cells.touch(host, ts)
    }
    if (rows.length < CHUNK_ROWS) break
    after = rows.at(-1)!.rowid
  }
  const insert = file.statement("INSERT INTO marks (level, start_ms, host, at_ms) VALUES ('minute', ?, ?, ?)")
  const atMs = Date.now()
  for (const { startMs, hosts } of cells.dirtyMinutes()) for (const host of hosts) insert.run(startMs, host, atMs)
}
