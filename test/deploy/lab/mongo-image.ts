// Stands for the image mongo:7, where none can be pulled: the mongod of the test servers with its libraries, MongoDB's
// own shell, and the user that the image has, on the tests' base image. Made once and kept in the tests' storage.

import { copyFile, link, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { runTool } from '../../servers/run-tool.ts'
import { mongodDirectory, verifyOnce } from '../../servers/server-cache.ts'
import { MONGOD_RELEASE } from '../../servers/versions.ts'
import { buildah, hasImage } from './containers.ts'
import { BASE_IMAGE } from './install.ts'
import { MONGOSH_VERSION, mongoshArchive } from './machine-tools.ts'

/** Counts up when what is in the image changes here. */
const EDITION = 1
const IMAGE = `localhost/pertoken-test-mongo:${MONGOD_RELEASE.version}-${MONGOSH_VERSION}-${EDITION}`

/** Answers the image's name; takes ten seconds the first time. Rejects with NotInstalled where a part is missing. */
export async function mongoImage(): Promise<string> {
  if (await hasImage(IMAGE)) return IMAGE
  await verifyOnce(mongodDirectory(), MONGOD_RELEASE.sha256)
  const context = await mkdtemp(join(tmpdir(), 'pertoken-mongo-image-'))
  try {
    const mongod = join(mongodDirectory(), 'mongod')
    const put = async (path: string) => {
      const target = join(context, basename(path))
      await link(path, target).catch(() => copyFile(path, target))
    }
    await put(mongod)
    await put(await mongoshArchive())
    const libraries = [...(await runTool('ldd', [mongod])).matchAll(/=> (\/\S+)/g)].map(([, path]) => path!)
    for (const path of libraries) await copyFile(path, join(context, basename(path)))
    await writeFile(
      join(context, 'mongosh'),
      '#!/bin/sh\nexec node /opt/mongosh/node_modules/mongosh/bin/mongosh.js "$@"\n',
      { mode: 0o755 },
    )
    const lines = [
      `FROM ${BASE_IMAGE}`,
      `COPY ${libraries.map((path) => basename(path)).join(' ')} /usr/lib/x86_64-linux-gnu/`,
      'COPY mongod mongosh /usr/bin/',
      'ADD mongosh.tgz /opt/mongosh/',
      // One shell as its own line: COPY and ADD leave no user behind.
      "RUN echo 'mongodb:x:999:999::/data/db:/bin/sh' >>/etc/passwd && mkdir -p /data/db /data/configdb",
    ]
    await writeFile(join(context, 'Dockerfile'), `${lines.join('\n')}\n`)
    await buildah('bud', '--isolation', 'chroot', '--tag', IMAGE, context)
    return IMAGE
  } finally {
    await rm(context, { recursive: true, force: true })
  }
}
