// One host under two spellings: token events name `gpu-1.example.com`, its samples `gpu-1`. To the ledger these are two
// hosts, so the GPU's time is paid for twice: once as idle without a model, and once as assumed. Only spellings are
// compared that differ by case, by a domain, or by the dot at its end, and only where samples have the very index: no
// two machines of a well fleet look like that.

/** A slot that a token event names. */
export interface UsedSlot {
  host: string
  gpu_index: number
}

/** A host that only tokens name, and the sampled one that it is likely to be. */
export interface HostSpelling {
  tokenHost: string
  sampleHost: string
  gpu_indexes: number[]
}

/** `sampled`: slots with samples; `used`: slots that tokens name. In order of the tokens' hosts. */
export function hostSpellings(
  sampled: Iterable<{ host: string | null; gpu_index: number }>,
  used: Iterable<UsedSlot>,
): HostSpelling[] {
  const indexesByHost = new Map<string, Set<number>>()
  for (const { host, gpu_index } of sampled) {
    if (host !== null) indexesByHost.set(host, (indexesByHost.get(host) ?? new Set()).add(gpu_index))
  }
  const hostsByLabel = Map.groupBy(indexesByHost.keys(), (host) => plain(host).split('.', 1)[0]!)
  const found = new Map<string, HostSpelling>()
  for (const { host, gpu_index } of used) {
    if (indexesByHost.has(host)) continue
    for (const sampleHost of hostsByLabel.get(plain(host).split('.', 1)[0]!) ?? []) {
      if (!isOneName(plain(host), plain(sampleHost)) || !indexesByHost.get(sampleHost)!.has(gpu_index)) continue
      const key = JSON.stringify([host, sampleHost])
      const indexes = found.get(key)?.gpu_indexes ?? []
      if (!indexes.includes(gpu_index)) indexes.push(gpu_index)
      found.set(key, { tokenHost: host, sampleHost, gpu_indexes: indexes.sort((a, b) => a - b) })
    }
  }
  return [...found.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, spelling]) => spelling)
}

/** A spelling as a sentence with what to do. */
export function spellingText({ tokenHost, sampleHost, gpu_indexes: indexes }: HostSpelling): string {
  const more = indexes.length > MAX_LISTED ? ` and ${indexes.length - MAX_LISTED} more` : ''
  const gpus = `GPU ${indexes.slice(0, MAX_LISTED).join(', ')}${more}`
  const found = `Tokens name host "${tokenHost}", of which no sample came; "${sampleHost}" has samples of ${gpus}`
  const entry = `hosts: [{ name: ${JSON.stringify(sampleHost)}, aliases: [${JSON.stringify(tokenHost)}] }]`
  return `${found}: if it is one host, its time is paid for twice; join them in the price book: ${entry}`
}

const MAX_LISTED = 5

/** Names compare without case and without the root's dot, as DNS does. */
function plain(host: string): string {
  return host.toLowerCase().replace(/\.$/, '')
}

/** Whether one name is the other, or the other without its domain. */
function isOneName(a: string, b: string): boolean {
  return a === b || a.startsWith(`${b}.`) || b.startsWith(`${a}.`)
}
