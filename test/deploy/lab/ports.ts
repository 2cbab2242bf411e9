// Programs that tests run on a host: `ports.ts listen ADDRESS,… PORT,…` listens wherever nobody does yet, so that only
// a firewall can be what keeps a port closed; `ports.ts probe ADDRESS:PORT …` tries all at once and prints, as JSON,
// what each was: open, refused (nobody listens, no firewall), or blocked (no answer for a second).

import { connect, createServer } from 'node:net'

export type Seen = 'open' | 'refused' | 'blocked'

const NO_ANSWER_MS = 1_000

function probe(target: string): Promise<Seen> {
  const at = target.lastIndexOf(':')
  return new Promise((resolve) => {
    const socket = connect({ host: target.slice(0, at), port: Number(target.slice(at + 1)) })
    const end = (seen: Seen) => {
      socket.destroy()
      resolve(seen)
    }
    // Not at once: on a busy machine the answer may be here, and only not yet looked at.
    socket.setTimeout(NO_ANSWER_MS, () => setImmediate(() => end('blocked')))
    socket.once('connect', () => end('open'))
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED' ? 'refused' : 'blocked'))
  })
}

async function main(): Promise<void> {
  const [what, ...words] = process.argv.slice(2)
  if (what === 'probe') {
    const seen = await Promise.all(words.map(async (target) => [target, await probe(target)]))
    console.log(JSON.stringify(Object.fromEntries(seen)))
    return
  }
  const [addresses, ports] = words.map((list) => list.split(','))
  let pending = addresses!.length * ports!.length
  const settled = () => {
    if (--pending === 0) console.log('listening')
  }
  for (const host of addresses!) {
    for (const port of ports!)
      createServer()
        .once('error', settled)
        .listen({ host, port: Number(port) }, settled)
  }
}

if (import.meta.main) await main()
