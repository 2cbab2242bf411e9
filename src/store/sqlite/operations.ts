// How a method of a port becomes work on the file. The classes that implement the ports are tables: each method is one
// line with the function that does the work, which takes the file and then the method's own parameters, and names its
// action for error texts where it runs its statements.

import { PagedIterator } from '../paged-iterator.ts'
import type { StoreDatabase } from './store-database.ts'

export abstract class SqliteOperations {
  /** The connection that both halves of the store share. */
  readonly file: StoreDatabase

  constructor(file: StoreDatabase) {
    this.file = file
  }

  /** A method that does `work`. */
  protected bound<A extends unknown[], T>(
    work: (file: StoreDatabase, ...args: A) => Promise<T>,
  ): (...args: A) => Promise<T> {
    return (...args) => work(this.file, ...args)
  }

  /** A method that streams the items of the pages that `read` yields. */
  protected streamed<A extends unknown[], T>(
    read: (file: StoreDatabase, ...args: A) => AsyncIterable<readonly T[]>,
  ): (...args: A) => AsyncIterable<T> {
    return (...args) => new PagedIterator(read(this.file, ...args))
  }
}
