// How a method of a port becomes work on the connection. The classes that implement the ports are tables: each method
// is one line with its action, which error texts name, and the function that does the work. That function takes the
// connection and then the method's own parameters. Connecting, and converting whatever is thrown into a StoreError, is
// done here for all of them.

import { PagedIterator } from '../paged-iterator.ts'
import type { MongoConnection } from './connection.ts'

export abstract class MongoOperations {
  protected readonly connection: MongoConnection

  constructor(connection: MongoConnection) {
    this.connection = connection
  }

  /** A method that does `work`; its errors begin with "Cannot <action>". */
  protected named<A extends unknown[], T>(
    action: string,
    work: (connection: MongoConnection, ...args: A) => Promise<T>,
  ): (...args: A) => Promise<T> {
    return (...args) => this.connection.run(action, () => work(this.connection, ...args))
  }

  /** A method that streams the items of the pages that `read` yields. */
  protected streamed<A extends unknown[], T>(
    action: string,
    read: (connection: MongoConnection, ...args: A) => AsyncIterable<readonly T[]>,
  ): (...args: A) => AsyncIterable<T> {
    const pages = async function* (connection: MongoConnection, args: A): AsyncGenerator<readonly T[]> {
      try {
        await connection.connect()
        yield* read(connection, ...args)
      } catch (error) {
        throw connection.failure(action, error)
      }
    }
    return (...args) => new PagedIterator(pages(this.connection, args))
  }
}
