// Versions of the price book and revisions of the ledger in one table, each numbered from 1, as JSON. Numbers are
// unique: of two processes that insert the same number, one gets false and takes the next.

import type { PriceBookVersion, Revision } from '../../ledger-store.ts'
import type { StoreDatabase } from '../store-database.ts'

type Kind = 'version' | 'revision'

export async function readBooks(file: StoreDatabase): Promise<PriceBookVersion[]> {
  return readAll(file, 'version')
}

export function insertBook(file: StoreDatabase, book: PriceBookVersion): Promise<boolean> {
  return insert(file, 'version', book.version, book)
}

export async function readRevisions(file: StoreDatabase): Promise<Revision[]> {
  return readAll(file, 'revision')
}

export function insertRevision(file: StoreDatabase, revision: Revision): Promise<boolean> {
  return insert(file, 'revision', revision.revision, revision)
}

export async function updateRevisionSummary(file: StoreDatabase, revision: number, summary: unknown): Promise<void> {
  const sql = "UPDATE price_book SET body = json_set(body, '$.summary', json(?)) WHERE kind = 'revision' AND number = ?"
  const text = JSON.stringify(summary)
  await file.transaction('Writing a revision failed', () => file.run(sql, text, revision))
}

function readAll<T>(file: StoreDatabase, kind: Kind): T[] {
  const sql = 'SELECT body FROM price_book WHERE kind = ? ORDER BY number'
  const rows = file.use('Reading the price book failed', () => file.all<{ body: string }>(sql, kind))
  return rows.map(({ body }) => JSON.parse(body))
}

async function insert(file: StoreDatabase, kind: Kind, number: number, item: object): Promise<boolean> {
  const sql = 'INSERT INTO price_book (kind, number, body) VALUES (?, ?, ?) ON CONFLICT (kind, number) DO NOTHING'
  const body = JSON.stringify(item)
  return (await file.transaction('Writing the price book failed', () => file.run(sql, kind, number, body))) === 1
}
