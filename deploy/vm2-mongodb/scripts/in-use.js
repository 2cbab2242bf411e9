// Run by MongoDB's shell inside the container: whether a processor is connected, which a restore must not go on under:
// it would store what it has in mind, positions included, over older data. Ends with 1 when there is one.

load('/etc/pertoken/scripts/login.js')

const { inprog } = db.adminCommand({ currentOp: 1, $all: true })
const addresses = new Set()
for (const { effectiveUsers, client } of inprog) {
  for (const { user } of effectiveUsers || [])
    if (user === 'pertoken') addresses.add(String(client).replace(/:\d+$/, ''))
}
if (addresses.size > 0) {
  print(`A processor is connected, from ${[...addresses].join(', ')}: stop it there first (VM3: make down)`)
  quit(1)
}
quit(0)
