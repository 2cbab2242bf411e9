// What doctor finds about the price book in force, on an embedded store: all rules fit, a slip in a name whose GPUs get
// the default, and rules without a GPU that cost nothing.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkPrices } from '../../src/cli/doctor/price-findings.ts'
import type { GpuDocument } from '../../src/domain/events/event.ts'
import { ownEventId } from '../../src/domain/events/event-id.ts'
import type { PriceMatch } from '../../src/domain/prices/price-book-schema.ts'
import { setBook } from '../../src/processor/prices/price-book-versions.ts'
import { SqliteStore } from '../../src/store/sqlite/sqlite-store.ts'

const NOW_MS = Date.UTC(2026, 5, 1, 12)
const LABEL = 'Rule "r0" matches name "NVIDIA-L40S", which no GPU has that was seen; seen: "NVIDIA L40S"'

const CASES: { title: string; matches: PriceMatch[]; found: [boolean | null, string][]; isEmpty?: true }[] = [
  { title: 'no rules', matches: [], found: [] },
  { title: 'no GPU was seen', matches: [{ name: 'NVIDIA-L40S' }], found: [], isEmpty: true },
  {
    title: 'every rule fits',
    matches: [{ name: '*L40S' }],
    found: [[true, 'each of 1 rules fits a GPU that was seen']],
  },
  {
    title: 'a name as a label has it: its GPU gets the default',
    matches: [{ name: 'NVIDIA-L40S' }],
    found: [
      [false, LABEL],
      [null, 'No rule fits e6/0 (NVIDIA L40S): the default, 0.85 USD/h'],
    ],
  },
  {
    title: 'a rule without a GPU, where every GPU has a rule',
    matches: [{ name: 'NVIDIA-L40S' }, { host: 'e6' }],
    found: [[null, LABEL]],
  },
]

for (const { title, matches, found, isEmpty } of CASES) {
  test(`prices: ${title}`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'pertoken-prices-'))
    t.after(() => rmSync(folder, { recursive: true, force: true }))
    const store = new SqliteStore({ path: join(folder, 'store.sqlite') })
    t.after(() => store.close())
    await store.prepare()
    assert.deepEqual(await checkPrices(store, NOW_MS), [])
    const sample = { ts: new Date(NOW_MS - 5000), host: 'e6', gpu_index: 0, name: 'NVIDIA L40S' }
    const documents = isEmpty ? [] : [{ _id: ownEventId('e6', 's'), ...sample } as unknown as GpuDocument]
    await store.writeDocuments(documents, [])
    const rules = matches.map((match, i) => ({ id: `r${i}`, match, kind: 'spot', usd_per_hour: 1 }))
    await setBook(store.ledger, { currency: 'USD', rules }, { origin: 'test', nowMs: NOW_MS })
    const findings = await checkPrices(store, NOW_MS)
    assert.deepEqual(
      findings.map(({ ok, message }) => [ok, message]),
      found,
    )
  })
}
