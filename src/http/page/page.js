// Fills the page at / with /api/v1/live and /health, about once a second while it is visible, and with the ledger's
// last hour, four times a minute. Plain browser JavaScript, served as it is. External names (model, host, GPU) only
// ever become text, never markup. When figures cannot be fetched, or the server reports them as past, the page shows
// "stale" and since when. Where the server requires an API token, the page asks for it, keeps it for this tab
// (sessionStorage) and sends it to this server only.

/**
 * @typedef {{ model: string, tokens_per_second: number, prompt_tokens_per_second: number,
 *   completion_tokens_per_second: number, cost_per_token: number | null, usd_per_million_tokens: number | null,
 *   too_few_tokens: boolean }} Model
 * @typedef {{ host: string | null, gpu_index: number, name: string | null, utilization: number | null,
 *   price_per_hour_usd: number, tokens_per_second: number, cost_per_token: number | null, monitored: boolean,
 *   price_basis: string, too_few_tokens: boolean }} Slot
 * @typedef {{ usd_per_hour: number, idle_usd_per_hour: number, uncovered_usd_per_hour: number,
 *   tokens_per_second: number, usd_per_million_tokens: number | null,
 *   usd_per_million_tokens_busy: number | null, too_few_tokens: boolean }} Totals
 * @typedef {{ as_of: string, stale: boolean, window_s: number, totals: Totals, models: Model[], slots: Slot[] }} Live
 * @typedef {{ status: string, problems: { message: string, since?: string }[], lag: number | null,
 *   last_event: string | null, outcomes: { stored: number, rejected: number }, log: string, store: string,
 *   version: string }} Health
 * @typedef {{ model: string | null, prompt_tokens: number, completion_tokens: number, busy_usd: number,
 *   loaded_idle_usd: number, unallocated_usd: number, usd_per_million_tokens: number | null,
 *   usd_per_million_tokens_busy: number | null, too_few_tokens: boolean }} Cost
 * @typedef {{ to: string, final: boolean, rows: Cost[], totals: Cost }} CostAnswer
 */

const REFRESH_MS = 1000
const FETCH_TIMEOUT_MS = 4000
const HOUR_REFRESH_MS = 15_000
/** Minutes of the ledger are computed once their late events are in. */
const LEDGER_LAG_MS = 180_000
const MINUTE_MS = 60_000
/** Rows of a table; more are counted, not drawn. */
const MAX_ROWS = 200
const NONE = '–'
/** Where the tab keeps its token. */
const TOKEN_KEY = 'pertoken-api-token'

/** Time of the figures that are shown, for the stale mark. */
let shownAsOf = ''
/** When the ledger was requested last. */
let hourRequestedMs = 0
/** The API token; null where none was required. */
let token = sessionStorage.getItem(TOKEN_KEY)
/** Whether the page waits for a token: until then it requests nothing. */
let needsToken = false

/** The server requires a token, or does not accept this one. */
class TokenNeeded extends Error {}

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id))

/**
 * Sets the text only when it differs, so that selections and screen readers are not disturbed.
 * @param {Element} element
 * @param {string} text
 */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/** @param {number | null} value @param {number} [digits] */
function count(value, digits = 0) {
  return value === null ? NONE : value.toLocaleString('en-US', { maximumFractionDigits: digits })
}

/** @param {number} value @param {Intl.NumberFormatOptions} options */
const dollars = (value, options) => `$${value.toLocaleString('en-US', options)}`

/**
 * A cost per million tokens: three decimals, so that a column lines up; more where they would all be zeros. @param
 * {number | null} value
 */
function cost(value) {
  if (value === null) return NONE
  if (value > 0 && value < 0.01) return dollars(value, { maximumSignificantDigits: 3 })
  return dollars(value, { minimumFractionDigits: 3, maximumFractionDigits: 3 })
}

/** The cost of a million tokens, where there are tokens enough for one. @param {number | null} value @param {boolean} few */
const perMillion = (value, few) => (few ? 'too few tokens' : cost(value))

/** A price per hour. @param {number} value */
const price = (value) => dollars(value, { minimumFractionDigits: 2, maximumFractionDigits: 4 })

/** Whole tokens, or three digits: as exact as the money beside it. @param {number} value */
const speed = (value) => (value < 100 ? value.toLocaleString('en-US', { maximumSignificantDigits: 3 }) : count(value))

/** @param {string} iso */
const clock = (iso) => iso.slice(11, 19)

/** @typedef {{ text: string, className?: string, share?: number | null }} Cell */

/**
 * Makes the body of a table show these rows, reusing its cells. The first cell of a row is its header.
 * @param {string} id
 * @param {Cell[][]} rows
 * @param {string} empty text when there are none
 */
function fill(id, rows, empty) {
  const body = /** @type {HTMLTableSectionElement} */ (byId(id).querySelector('tbody'))
  const columns = byId(id).querySelectorAll('thead th').length
  const isEmpty = rows.length === 0
  if ((body.dataset.empty === 'true') !== isEmpty) body.replaceChildren()
  body.dataset.empty = String(isEmpty)
  if (isEmpty) {
    if (body.rows.length === 0) {
      const cell = body.insertRow().insertCell()
      cell.colSpan = columns
      cell.className = 'none'
      cell.textContent = empty
    }
    return
  }
  while (body.rows.length > rows.length) body.deleteRow(-1)
  rows.forEach((cells, i) => {
    const row = body.rows[i] ?? newRow(body, cells)
    cells.forEach((cell, j) => {
      setCell(/** @type {HTMLTableCellElement} */ (row.cells[j]), cell)
    })
  })
}

/** @param {HTMLTableSectionElement} body @param {Cell[]} cells */
function newRow(body, cells) {
  const row = body.insertRow()
  cells.forEach(({ className = '', share }, i) => {
    const cell = document.createElement(i === 0 ? 'th' : 'td')
    if (i === 0) cell.scope = 'row'
    cell.className = className
    if (share !== undefined) {
      const meter = document.createElement('span')
      meter.className = 'meter'
      meter.setAttribute('aria-hidden', 'true')
      meter.append(document.createElement('i'))
      cell.append(meter)
    }
    cell.append(document.createElement('span'))
    row.append(cell)
  })
  return row
}

/** @param {HTMLTableCellElement} cell @param {Cell} content */
function setCell(cell, { text, share }) {
  setText(/** @type {Element} */ (cell.lastElementChild), text)
  const bar = cell.querySelector('i')
  if (bar !== null) bar.style.width = `${Math.round((share ?? 0) * 100)}%`
}

/** @param {Model} model @returns {Cell[]} */
function modelRow(model) {
  return [
    { text: model.model },
    { text: perMillion(model.usd_per_million_tokens, model.too_few_tokens), className: 'number' },
    { text: speed(model.tokens_per_second), className: 'number' },
    { text: speed(model.prompt_tokens_per_second), className: 'number wide' },
    { text: speed(model.completion_tokens_per_second), className: 'number wide' },
  ]
}

/** The price of an owned GPU has what it draws now, where that is known. @param {Slot} slot */
const slotPrice = ({ price_per_hour_usd, price_basis }) =>
  price(price_per_hour_usd) + (price_basis === 'rule_without_power' ? ', power unknown' : '')

/** @param {Slot} slot @returns {Cell[]} */
function slotRow(slot) {
  const { utilization, monitored } = slot
  const share = utilization === null ? NONE : `${Math.round(utilization * 100)} %`
  return [
    { text: `${slot.host ?? '(none)'} · ${slot.gpu_index}` },
    { text: slot.name ?? NONE, className: 'wide' },
    { text: monitored ? share : 'not monitored', className: 'number', share: monitored ? utilization : null },
    { text: slotPrice(slot), className: 'number' },
    { text: speed(slot.tokens_per_second), className: 'number wide' },
    {
      text: perMillion(slot.cost_per_token === null ? null : slot.cost_per_token * 1e6, slot.too_few_tokens),
      className: 'number',
    },
  ]
}

/** @param {number} total @param {string} rest */
function hint(total, rest) {
  return total > MAX_ROWS ? `first ${MAX_ROWS} of ${count(total)}, ${rest}` : rest
}

/** @param {Live} live */
function showLive(live) {
  const { models, slots } = live
  fill('models', models.slice(0, MAX_ROWS).map(modelRow), `No tokens in the last ${live.window_s} s`)
  fill('slots', slots.slice(0, MAX_ROWS).map(slotRow), 'No GPU has been seen yet')
  setText(byId('models-hint'), hint(models.length, `last ${live.window_s} s, the GPUs that they ran on`))
  setText(byId('slots-hint'), hint(slots.length, 'newest sample of each'))

  showTotals(live)
  const known = slots.flatMap(({ utilization, monitored }) => (utilization === null || !monitored ? [] : [utilization]))
  const mean = known.reduce((sum, utilization) => sum + utilization, 0) / known.length
  setText(byId('utilization'), known.length === 0 ? NONE : `${Math.round(mean * 100)} %`)
}

/** The fleet: the first figure is the quotient of the two beside it. @param {Live} live */
function showTotals({ totals, slots }) {
  const { usd_per_hour, idle_usd_per_hour, uncovered_usd_per_hour, tokens_per_second } = totals
  const hourly = (/** @type {number} */ value) => (slots.length === 0 ? NONE : price(value))
  setText(byId('cost'), perMillion(totals.usd_per_million_tokens, totals.too_few_tokens))
  setText(byId('busy-cost'), perMillion(totals.usd_per_million_tokens_busy, totals.too_few_tokens))
  setText(byId('speed'), speed(tokens_per_second))
  setText(byId('price'), hourly(usd_per_hour))
  setText(byId('idle'), hourly(idle_usd_per_hour))
  setText(byId('uncovered'), uncovered_usd_per_hour === 0 ? '' : `+ ${price(uncovered_usd_per_hour)} not monitored`)
}

/** Money: cents, more where they would be zeros. @param {number} value */
const usd = (value) => dollars(value, { minimumFractionDigits: 2, maximumFractionDigits: value < 0.1 ? 4 : 2 })

/** @param {Cost} row @param {string} name @returns {Cell[]} */
function hourRow(row, name) {
  return [
    { text: name },
    { text: perMillion(row.usd_per_million_tokens, row.too_few_tokens), className: 'number' },
    { text: perMillion(row.usd_per_million_tokens_busy, row.too_few_tokens), className: 'number wide' },
    { text: count(row.prompt_tokens + row.completion_tokens), className: 'number wide' },
    { text: usd(row.busy_usd), className: 'number' },
    { text: usd(row.loaded_idle_usd + row.unallocated_usd), className: 'number' },
  ]
}

/** @param {CostAnswer} answer */
function showHour({ rows, totals, to, final }) {
  const named = rows.slice(0, MAX_ROWS).map((row) => hourRow(row, row.model ?? '(none)'))
  const all = rows.length > 1 ? [...named, hourRow(totals, 'All')] : named
  fill('hour', all, 'The ledger has nothing of the last hour yet')
  setText(byId('hour-hint'), hint(rows.length, `to ${clock(to)} UTC, idle included${final ? '' : ', not final'}`))
}

/** The hour before the last minute that the ledger can have; failures are reported with the live figures. */
async function refreshHour() {
  const nowMs = Date.now()
  if (needsToken || nowMs - hourRequestedMs < HOUR_REFRESH_MS) return
  hourRequestedMs = nowMs
  const toMs = Math.floor((nowMs - LEDGER_LAG_MS) / MINUTE_MS) * MINUTE_MS
  try {
    showHour(await fetchJson(`api/v1/cost?by=model&from=${toMs - 60 * MINUTE_MS}&to=${toMs}`))
  } catch {
    setText(byId('hour-hint'), 'cannot be read now: the figures below are old')
  }
}

/** @param {Health} health */
function showHealth(health) {
  setText(byId('lag'), count(health.lag))
  setText(byId('dead-letters'), count(health.outcomes.rejected))
  const lastEvent = health.last_event === null ? 'no event yet' : `last event ${clock(health.last_event)} UTC`
  const about = `pertoken ${health.version} · ${health.log} · ${health.store}`
  setText(byId('about'), `${about} · ${count(health.outcomes.stored)} stored since the start · ${lastEvent}`)
}

/** @param {string[]} messages */
function showProblems(messages) {
  const list = byId('problems')
  list.hidden = messages.length === 0
  while (list.children.length > messages.length) list.lastElementChild?.remove()
  messages.forEach((message, i) => {
    setText(list.children[i] ?? list.appendChild(document.createElement('li')), message)
  })
}

/** @param {boolean} isStale */
function showState(isStale) {
  const state = isStale ? 'stale' : 'live'
  document.body.dataset.state = state
  byId('state').dataset.state = state
  const since = shownAsOf === '' ? 'no figures yet' : `figures of ${clock(shownAsOf)} UTC`
  setText(byId('state'), isStale ? `stale: ${since}` : 'live')
}

/** @param {string} path relative to this file, which may be below a path of a reverse proxy */
async function fetchJson(path) {
  const url = new URL(path, import.meta.url)
  /** @type {Record<string, string>} */
  const headers = token === null ? {} : { authorization: `Bearer ${token}` }
  const response = await fetch(url, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS), cache: 'no-store', headers })
  if (response.status === 401 || response.status === 403) throw new TokenNeeded((await response.json()).detail)
  // /health responds 503 with the same body when something is wrong.
  if (!response.ok && response.status !== 503) throw new Error(`${path} responded ${response.status}`)
  return response.json()
}

/** @param {string} why */
function askForToken(why) {
  needsToken = true
  sessionStorage.removeItem(TOKEN_KEY)
  showToken()
  if (token !== null) setText(byId('login-hint'), why)
  token = null
  showProblems([])
  document.body.dataset.state = 'stale'
  byId('state').dataset.state = 'stale'
  setText(byId('state'), 'needs a token')
}

/** Shows the field while a token is required, and hides what works only without one. */
function showToken() {
  byId('login').hidden = !needsToken
  document.body.dataset.token = 'true'
  byId('dead-letters').removeAttribute('href')
}

/** @param {SubmitEvent} event */
function acceptToken(event) {
  event.preventDefault()
  const field = /** @type {HTMLInputElement} */ (byId('token'))
  token = field.value.trim()
  field.value = ''
  sessionStorage.setItem(TOKEN_KEY, token)
  needsToken = false
  showToken()
  hourRequestedMs = 0
  void refresh()
}

async function refresh() {
  if (needsToken) return
  try {
    const [live, health] = await Promise.all([
      /** @type {Promise<Live>} */ (fetchJson('api/v1/live')),
      /** @type {Promise<Health>} */ (fetchJson('health')),
    ])
    showLive(live)
    showHealth(health)
    const waiting = health.status === 'ok' ? [] : [`The processor is ${health.status}`]
    const problems = health.problems.map(({ message, since }) =>
      since ? `${message} (since ${clock(since)} UTC)` : message,
    )
    showProblems(problems.length > 0 ? problems : waiting)
    if (!live.stale || shownAsOf === '') shownAsOf = live.as_of
    showState(live.stale)
  } catch (error) {
    if (error instanceof TokenNeeded) return askForToken(error.message)
    showProblems(['The server does not answer: the figures below are old'])
    showState(true)
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await Promise.all([refresh(), refreshHour()])
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS))
  }
}

if (token !== null) showToken()
byId('login').addEventListener('submit', acceptToken)
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void refresh()
})
void run()
