// The tables of the embedded store and their format number. An event table has the columns that queries and the
// ledger's grouping need, and `body`, the document as JSON without `_id` and `ts`. Tables keep SQLite's rowid and a
// unique index on `_id`: measured 25 % faster to write than a table clustered on the text id, which every index would
// repeat. `slots` names each slot's newest sample (host '' is null): an index over host and gpu_index would be written
// to in as many pages as there are slots, and cost as much as the rest of a write. `counters` holds the sizes of the
// event tables, since counting rows is a scan; deletions update it in the same transaction. The longest column of
// `cost_ledger` is the last: those before it are read without it.

import { StoreError } from '../event-store.ts'
import type { StoreDatabase } from './store-database.ts'

/** The format that this version reads and writes. */
const FORMAT = 2

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
    cached_prompt_tokens INTEGER NOT NULL, requests INTEGER NOT NULL, body TEXT NOT NULL);
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
    if (!hasTotals(file)) file.exec(ADD_TOTALS)
    if (format < FORMAT) file.run("INSERT OR REPLACE INTO meta (name, value) VALUES ('format', ?)", FORMAT)
  })
  return { warnings: [] }
}

function hasTotals(file: StoreDatabase): boolean {
  return file.all<{ name: string }>('PRAGMA table_info(cost_ledger)').some(({ name }) => name === 'model_sums')
}
