// Run by MongoDB's shell inside the container: what is stored, how much room it takes, how new it is, and who may log in.

load('/etc/pertoken/scripts/login.js')

const own = db.getSiblingDB(process.env.MONGO_DATABASE)
const mib = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`

for (const { name } of own.getCollectionInfos({}, true).sort((a, b) => a.name.localeCompare(b.name))) {
  const { count, storageSize, totalIndexSize } = own.getCollection(name).stats()
  const newest = ['gpu_metrics', 'token_usage'].includes(name)
    ? own.getCollection(name).find({}, { ts: 1 }).sort({ ts: -1 }).limit(1).toArray()[0]
    : undefined
  const age = newest === undefined ? '' : `, newest ${JSON.stringify(newest.ts)}`
  print(
    `${name.padEnd(14)} ${String(count).padStart(10)} documents, ${mib(storageSize)} + indexes ${mib(totalIndexSize)}${age}`,
  )
}
const { dataSize, totalSize } = own.stats()
print(`${own.getName()}: ${mib(totalSize)} on disk for ${mib(dataSize)} of documents`)
print(
  `users: ${own
    .getUsers()
    .users.map(({ user, roles }) => `${user} (${roles.map(({ role }) => role).join(', ')})`)
    .join(', ')}`,
)
