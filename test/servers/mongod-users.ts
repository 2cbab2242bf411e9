// A user of a secured mongod with the rights that pertoken needs and no others: the role of
// deploy/vm2-mongodb/roles.json, as an operator would apply it. A role of one database, so each test may have its own.

import { readFileSync } from 'node:fs'
import { MongoClient } from 'mongodb'
import { withDatabase } from './servers-for-tests.ts'

export type RoleDocument = {
  role: string
  privileges: { resource: { db: string; collection: string }; actions: string[] }[]
  roles: string[]
}

const ROLES = new URL('../../deploy/vm2-mongodb/roles.json', import.meta.url)

export function leastRole(): RoleDocument {
  return JSON.parse(readFileSync(ROLES, 'utf8')) as RoleDocument
}

export type MongoUser = { name: string; password: string; role?: RoleDocument }

/** Makes the role and a user with it in a database, as the user that the server's URL names. */
export async function makeUser(serverUrl: string, database: string, user: MongoUser): Promise<void> {
  const client = new MongoClient(serverUrl)
  try {
    const { role, privileges, roles } = user.role ?? leastRole()
    const own = privileges.map(({ resource, actions }) => ({ resource: { ...resource, db: database }, actions }))
    const name = `${role}-${user.name}`
    await client.db(database).command({ createRole: name, privileges: own, roles })
    await client.db(database).command({ createUser: user.name, pwd: user.password, roles: [name] })
  } finally {
    await client.close()
  }
}

/**
 * The server's URL for another user (null: nobody), who belongs to the database; the password only where it is given.
 */
export function urlFor(serverUrl: string, database: string, user: { name: string; password?: string } | null): string {
  const parts = [user?.name, user?.password].filter((part) => part !== undefined).map(encodeURIComponent)
  const login = user === null ? '' : `${parts.join(':')}@`
  const withUser = serverUrl.replace(/\/\/(?:.*@)?/, `//${login}`).replace(/authSource=admin&?/, '')
  return withDatabase(withUser, database)
}
