// Run on the host of a mongod that asks for logins and has no user yet: `first-users.ts ADDRESS` makes it a replica set
// of one under that address, and its users, the first one from this machine as MongoDB has it: pertoken, with the role
// of deploy/vm2-mongodb/roles.json and no other right. Passwords come as JSON by standard input.

import { text } from 'node:stream/consumers'
import { MongoClient } from 'mongodb'
import { untilAnswered } from '../../servers/managed-server.ts'
import { makeUser } from '../../servers/mongod-users.ts'

const LOCAL = '127.0.0.1:27017/?directConnection=true&serverSelectionTimeoutMS=500'
const address = process.argv[2]!
const passwords = JSON.parse(await text(process.stdin)) as { root: string; pertoken: string }

async function withClient(url: string, use: (client: MongoClient) => Promise<unknown>): Promise<void> {
  const client = new MongoClient(url)
  try {
    await use(client)
  } finally {
    await client.close()
  }
}

const members = [{ _id: 0, host: `${address}:27017` }]
await untilAnswered(
  () =>
    withClient(`mongodb://${LOCAL}`, (client) =>
      client.db('admin').command({ replSetInitiate: { _id: 'pertoken', members } }),
    ),
  30_000,
)
const root = { createUser: 'root', pwd: passwords.root, roles: ['root'] }
await untilAnswered(() => withClient(`mongodb://${LOCAL}`, (client) => client.db('admin').command(root)), 30_000)
const asRoot = `mongodb://root:${encodeURIComponent(passwords.root)}@${LOCAL}&authSource=admin`
await makeUser(asRoot, 'ca0', { name: 'pertoken', password: passwords.pertoken })
