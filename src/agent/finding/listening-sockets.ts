// Linux' tables of TCP sockets (/proc/net/tcp and tcp6, or those of a process' network namespace) as listening sockets,
// and its routing table as the addresses that a namespace has of its own. Pure. Formats: Documentation/networking/
// proc_net_tcp.rst of Linux, and net/ipv4/fib_trie.c.

export interface ListeningSocket {
  /** As it is written in a URL: `127.0.0.1`, `0.0.0.0`, `[::1]`, `[::]`. */
  address: string
  port: number
  /** Identifies the socket; a process that holds it has a link `socket:[INODE]` among its descriptors. */
  inode: number
}

/** TCP_LISTEN. */
const LISTEN = '0A'
const LINE =
  /^\s*\d+: ([\dA-F]{8}|[\dA-F]{32}):([\dA-F]{4}) [\dA-F]+:[\dA-F]{4} ([\dA-F]{2}) \S+ \S+ \S+\s+\d+\s+\d+ (\d+)/

/** Lines that are none, as the head, are left out. */
export function parseListeningSockets(text: string): ListeningSocket[] {
  return text.split('\n').flatMap((line) => {
    const [, address, port, state, inode] = LINE.exec(line) ?? []
    if (address === undefined || state !== LISTEN) return []
    return [{ address: addressOf(address), port: Number.parseInt(port!, 16), inode: Number(inode) }]
  })
}

/** The kernel prints 32 bits at a time, in the byte order of the machine: little-endian on all that GPUs are in. */
function addressOf(hex: string): string {
  const bytes: number[] = []
  for (let word = 0; word < hex.length; word += 8)
    for (let byte = 6; byte >= 0; byte -= 2) bytes.push(Number.parseInt(hex.slice(word + byte, word + byte + 2), 16))
  if (bytes.length === 4) return bytes.join('.')
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff
  if (isMapped) return bytes.slice(12).join('.')
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16))
  return new URL(`http://[${groups.join(':')}]`).hostname
}

/** IPv4 addresses of a network namespace by its /proc/PID/net/fib_trie, without loopback. */
export function parseOwnAddresses(text: string): string[] {
  const found = [...text.matchAll(/\|-- (\d+\.\d+\.\d+\.\d+)\s+\/32 host LOCAL/g)].map(([, address]) => address!)
  return [...new Set(found)].filter((address) => !address.startsWith('127.'))
}
