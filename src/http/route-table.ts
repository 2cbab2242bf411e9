// The methods of each path, to distinguish 404 (no such path) from 405 (method not allowed): the router itself only
// knows whether method and path match together. Consulted only for requests that matched no route, so it may be slow.

export class RouteTable {
  readonly #routes = new Map<string, { pattern: RegExp; methods: Set<string> }>()

  /** Adds a route as it is declared: `/a/:id`, `/a/*`. */
  add(method: string | readonly string[], url: string): void {
    let route = this.#routes.get(url)
    if (route === undefined) {
      route = { pattern: patternOf(url), methods: new Set() }
      this.#routes.set(url, route)
    }
    for (const name of [method].flat()) route.methods.add(name)
  }

  /** Methods of the routes that match a path, sorted; empty when none does. */
  methodsOf(path: string): string[] {
    const matching = [...this.#routes.values()].filter(({ pattern }) => pattern.test(path))
    return [...new Set(matching.flatMap(({ methods }) => [...methods]))].sort()
  }
}

function patternOf(url: string): RegExp {
  const parts = url.split(/(:[a-zA-Z]+|\*)/)
  const pattern = parts.map((part) =>
    part === '*' ? '.*' : part.startsWith(':') ? '[^/]+' : part.replaceAll('.', '\\.'),
  )
  return new RegExp(`^${pattern.join('')}$`)
}
