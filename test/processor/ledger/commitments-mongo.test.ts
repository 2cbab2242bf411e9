// Commitments on MongoDB: a shorter time, the rules are the same.

import { MongoStore } from '../../../src/store/mongo/mongo-store.ts'
import { mongoForTests, uniqueName, withDatabase } from '../../servers/servers-for-tests.ts'
import { commitmentsContract } from './commitments.contract.ts'
import { Lines } from './ledger-place.ts'

const { skip, url } = await mongoForTests()

const open = async () => {
  const store = new MongoStore({ url: withDatabase(url, uniqueName('commitments')), log: new Lines() })
  return { store, dispose: () => store.close() }
}

if (skip === false) commitmentsContract('mongodb', open, { days: 1 })
