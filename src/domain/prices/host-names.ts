// Joined host names: a price book's `hosts` states which names stand for one host, since producers beside each other
// often do not agree (`gpu-1`, `gpu-1.example.com`, a container's id). The join is a rule of the book, not of the
// event: documents keep the name that they came with, and whoever computes by a version of the book reads all names
// of a host together. So it holds for the past as far as a range is repriced to that version.
// docs/adr/0011-joined-host-names.md.

import type { PriceBookDocument, PriceMatch } from './price-book-schema.ts'

export class HostNames {
  readonly #nameOf = new Map<string, string>()
  readonly #namesOf = new Map<string, readonly string[]>()

  /** `hosts` has passed the check: no name is another's alias, none occurs twice. */
  constructor(hosts: PriceBookDocument['hosts']) {
    for (const { name, aliases } of hosts ?? []) {
      this.#namesOf.set(name, [name, ...aliases])
      for (const alias of aliases) this.#nameOf.set(alias, name)
    }
  }

  /** Whether any name is joined at all. */
  get isEmpty(): boolean {
    return this.#nameOf.size === 0
  }

  /** The one name of the host that events call `host`. */
  nameOf<H extends string | null>(host: H): H {
    if (host === null) return host
    return (this.#nameOf.get(host) ?? host) as H
  }

  /** All names whose events are in the cells of `host`, its own first; none where `host` is an alias itself. */
  namesOf(host: string | null): readonly (string | null)[] {
    if (host === null || this.isEmpty) return [host]
    if (this.#nameOf.has(host)) return []
    return this.#namesOf.get(host) ?? [host]
  }

  /** The cells that events of `host` change: its own, which an older version may have filled, and its one name's. */
  cellsOf(host: string | null): (string | null)[] {
    const name = this.nameOf(host)
    return name === host ? [host] : [host, name]
  }

  /** A match that names the host by its one name. */
  matchOf(match: PriceMatch): PriceMatch {
    return match.host === undefined ? match : { ...match, host: this.nameOf(match.host) }
  }
}
