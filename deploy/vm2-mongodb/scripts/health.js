// Run by MongoDB's shell inside the container: whether it takes writes under the address that VM3 knows, and whether the
// two users can log in. Prints a line for each; ends with 1 when one is wrong.

const fs = require('node:fs')

const { MONGO_ADDRESS: address, MONGO_PORT: port, MONGO_DATABASE: database } = process.env
const host = `${address.includes(':') ? `[${address}]` : address}:${port}`
let wrong = 0

function check(what, remedy, isWell) {
  let state
  try {
    state = isWell() ? null : 'no'
  } catch (error) {
    state = error.message
  }
  if (state !== null) wrong++
  print(state === null ? `ok    ${what}` : `WRONG ${what}: ${state}; ${remedy}`)
}

check('takes writes', 'make up initiates the replica set', () => db.hello().isWritablePrimary)
check(`its replica set says ${host}`, 'make up sets it', () => db.hello().me === host)
for (const user of ['pertoken', 'reader']) {
  const own = db.getSiblingDB(database)
  const password = () => fs.readFileSync(`/etc/pertoken/secrets/${user}-password`, 'utf8').trim()
  check(`${user} can log in`, 'make up gives it the password of secrets/', () => own.auth(user, password()).ok === 1)
  own.logout()
}
quit(wrong === 0 ? 0 : 1)
