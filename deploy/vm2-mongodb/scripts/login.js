// Run by MongoDB's shell inside the container: logs in as root, with the password that lies beside it.

const rootPassword = require('node:fs').readFileSync('/etc/pertoken/secrets/root-password', 'utf8').trim()
db.getSiblingDB('admin').auth('root', rootPassword)
