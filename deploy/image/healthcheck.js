// The image's health check: asks the pertoken that runs in this container for its /health; exit 0 when it answers 200,
// else 1 with the reason. Plain JavaScript without imports of ours: it runs every few seconds, beside a busy processor.
// The command word of the container's first process says whom to ask: processor and up serve HOST:PORT, the agent its own
// loopback port, and the others serve nothing, so that running is all the health they have.

import { readFileSync } from 'node:fs'
import { get as httpGet } from 'node:http'
import { get as httpsGet } from 'node:https'

const TIMEOUT_MS = 4000

/**
 * Words after pertoken.js of the container's first process; an init before it (docker run --init) does no harm. Where the
 * first process is another's (docker run --pid), the processor is asked for.
 */
function commandWords() {
  const words = readFileSync('/proc/1/cmdline', 'utf8').split('\0')
  const at = words.findIndex((word) => word.endsWith('/pertoken.js'))
  return at === -1 ? ['processor'] : words.slice(at + 1)
}

/** What to ask, or null when this command serves nothing. Flags win over the environment; an empty variable is unset. */
function healthAddress(words, env) {
  const setting = (name, flag, otherwise) => {
    const at = words.findIndex((word) => word === flag || word.startsWith(`${flag}=`))
    const given = at === -1 ? env[name] : words[at].includes('=') ? words[at].slice(flag.length + 1) : words[at + 1]
    return given || otherwise
  }
  if (words[0] === 'agent') return `http://127.0.0.1:${setting('AGENT_PORT', '--port', '8419')}/health`
  if (words[0] !== 'processor' && words[0] !== 'up') return null
  const host = setting('HOST', '--host', '0.0.0.0')
  const asked = /^[0:.]+$/.test(host) ? '127.0.0.1' : host.includes(':') ? `[${host}]` : host
  const scheme = setting('HTTP_TLS_CERT', '--http-tls-cert', '') === '' ? 'http' : 'https'
  return `${scheme}://${asked}:${setting('PORT', '--port', '8080')}/health`
}

function end(code, message) {
  process.stdout.write(`${message}\n`)
  process.exit(code)
}

const words = commandWords()
const address = healthAddress(words, process.env)
if (address === null) end(0, `${words[0] ?? 'This'} serves no /health: it runs`)
// The certificate names the machine as others see it, and this question never leaves the machine.
const options = { timeout: TIMEOUT_MS, rejectUnauthorized: false }
const request = (address.startsWith('https:') ? httpsGet : httpGet)(address, options, (response) => {
  let text = ''
  response.on('data', (chunk) => {
    text += chunk
  })
  response.on('end', () => end(response.statusCode === 200 ? 0 : 1, `${address}: ${response.statusCode} ${text}`))
})
request.on('timeout', () => request.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)))
request.on('error', (error) => end(1, `${address}: ${error.message}`))
