// Run by MongoDB's shell inside the container, from this machine: makes what a new MongoDB lacks, and sets right what has
// changed: the replica set of one under this machine's address, root, and in the database the role of roles.json with its
// user `pertoken`, and the user `reader`, who may read. The first user is made while there is none, which MongoDB allows
// from its own machine. Safe to repeat at any time: passwords and rights become those of the files.

const fs = require('node:fs')

const FOLDER = '/etc/pertoken'
const { MONGO_ADDRESS: address, MONGO_PORT: port, MONGO_DATABASE: database } = process.env
const host = `${address.includes(':') ? `[${address}]` : address}:${port}`
const admin = db.getSiblingDB('admin')
const own = db.getSiblingDB(database)

const secretPath = (user) => `${FOLDER}/secrets/${user}-password`
const secret = (path) => fs.readFileSync(path, 'utf8').trim()
/** The password to give: a new one where a rotation has begun. */
const password = (user) =>
  secret(fs.existsSync(`${secretPath(user)}.new`) ? `${secretPath(user)}.new` : secretPath(user))

const UNAUTHORIZED = 13
const AUTHENTICATION_FAILED = 18
const ALREADY_INITIALIZED = 23

/** Whether the server does it; false where it refuses with one of the codes. */
function does(command, codes) {
  try {
    // Waited for here, and not by whoever gets it: the shell's commands are promises under their skin.
    const answer = command()
    return answer !== undefined
  } catch (error) {
    if (codes.includes(error.code)) return false
    throw error
  }
}

/** Whether root is there; with the old password or, after a rotation that was cut short, the new one. */
function logIn() {
  for (const pwd of [secret(secretPath('root')), password('root')]) {
    if (does(() => admin.auth('root', pwd), [AUTHENTICATION_FAILED, UNAUTHORIZED])) return true
  }
  return false
}

function untilPrimary() {
  for (let tries = 0; tries < 600; tries++) {
    if (admin.hello().isWritablePrimary) return
    sleep(100)
  }
  throw new Error(`MongoDB does not become primary: is ${host} an address of this machine?`)
}

/** A set that was made under another address (a restored backup, a machine that moved) would wait for that one for ever. */
function setAddress() {
  const config = admin.runCommand({ replSetGetConfig: 1 }).config
  if (config.members.length !== 1 || config.members[0].host === host) return
  config.members[0].host = host
  config.version += 1
  admin.runCommand({ replSetReconfig: config, force: true })
  print(`The replica set has now the address ${host}`)
}

function setUser(user, roles) {
  const pwd = password(user)
  if (own.getUser(user) === null) own.createUser({ user, pwd, roles })
  else own.updateUser(user, { pwd, roles })
}

function setRole() {
  const { role, privileges, roles } = JSON.parse(fs.readFileSync(`${FOLDER}/roles.json`, 'utf8'))
  const rights = privileges.map(({ resource, actions }) => ({ resource: { ...resource, db: database }, actions }))
  if (own.getRole(role) === null) own.createRole({ role, privileges: rights, roles })
  else own.updateRole(role, { privileges: rights, roles })
  return role
}

if (logIn()) {
  setAddress()
  untilPrimary()
  admin.updateUser('root', { pwd: password('root') })
} else {
  const members = [{ _id: 0, host }]
  does(() => admin.runCommand({ replSetInitiate: { _id: 'pertoken', members } }), [ALREADY_INITIALIZED])
  untilPrimary()
  const user = { user: 'root', pwd: password('root'), roles: ['root'] }
  if (!does(() => admin.createUser(user), [UNAUTHORIZED])) {
    throw new Error('Cannot log in: MongoDB has users, and root has another password than secrets/root-password says')
  }
  admin.auth('root', user.pwd)
}
const role = setRole()
setUser('pertoken', [role])
setUser('reader', ['read'])
print(`MongoDB is a replica set at ${host}; users pertoken and reader belong to the database ${database}`)
