// The DCGM exporter as a source: what it reads over HTTP, and each way in which the exporter can have nothing to read.

import assert from 'node:assert/strict'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { DcgmSource } from '../../../../src/agent/gpu/dcgm/dcgm-source.ts'

const line = (index: number, host = 'box', uuid = `GPU-${host}-${index}`) =>
  `DCGM_FI_DEV_GPU_UTIL{gpu="${index}",UUID="${uuid}",modelName="NVIDIA L4",Hostname="${host}"} ${index}\n`

async function serve(t: TestContext, handle: RequestListener): Promise<URL> {
  const server = createServer(handle)
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`)
}

/** A source over an exporter whose page is what `page` returns. */
async function open(t: TestContext, page: () => string, hostname = 'box') {
  const url = await serve(t, (_request, response) => response.end(page()))
  const source = new DcgmSource({ url, hostname })
  t.after(() => source.close())
  return source
}

const indexes = async (source: DcgmSource) => (await source.read()).map(({ gpuIndex }) => gpuIndex)

test('GPUs are read by index, and a page of this host gives no notice', async (t) => {
  const source = await open(t, () => line(1) + line(0))
  assert.deepEqual(await indexes(source), [0, 1])
  assert.deepEqual([source.faults, source.notices, source.repeats], [[], [], true])
})

test('a GPU that disappears from the page is named', async (t) => {
  let page = line(0) + line(1)
  const source = await open(t, () => page)
  await source.read()
  page = line(0)
  assert.deepEqual(await indexes(source), [0])
  assert.match(source.faults.join(), /^GPU 1 \(NVIDIA L4, GPU-box-1\) is gone/)
})

test('a page of another name is read, and noticed: samples carry the name of the settings', async (t) => {
  const source = await open(t, () => line(0, 'node-7'))
  assert.deepEqual(await indexes(source), [0])
  assert.deepEqual([source.faults, source.notices], [[], [`DCGM's page is of host "node-7"; samples carry "box"`]])
})

test('of a page of several hosts the GPUs of this one are read, or none', async (t) => {
  const page = () => line(0, 'a') + line(0, 'box') + line(1, 'box') + line(1, 'b')
  const source = await open(t, page)
  assert.deepEqual(
    (await source.read()).map(({ uuid }) => uuid),
    ['GPU-box-0', 'GPU-box-1'],
  )
  const other = await open(t, page, 'elsewhere')
  await assert.rejects(other.read(), {
    name: 'GpuSourceError',
    message:
      'Cannot read GPUs by DCGM: the page has GPUs of 3 hosts (a, b, box) and none of elsewhere; set HOSTNAME to one of them',
  })
})

test('two GPUs with one index are not mixed: one is read, the other reported', async (t) => {
  const source = await open(t, () => line(0) + line(0, 'box', 'GPU-other'))
  assert.deepEqual(
    (await source.read()).map(({ uuid }) => uuid),
    ['GPU-box-0'],
  )
  assert.deepEqual(source.faults, ["GPU 0: DCGM's page has two, GPU-box-0 and GPU-other; the second is left out"])
})

test('an exporter without GPUs, one that is something else, and one that is not there are reported, and read again', async (t) => {
  let page = 'node_load1 3\n'
  const source = await open(t, () => page)
  const isEmpty = { name: 'GpuSourceError', message: /has no series of a GPU .*; see that it is a DCGM exporter/ }
  await assert.rejects(source.read(), isEmpty)
  assert.match(source.faults.join(), /has no series of a GPU/)
  page = '<html>hello</html>\n'
  await assert.rejects(source.read(), isEmpty)
  page = 'a 1\n'.repeat(200_001)
  await assert.rejects(source.read(), { name: 'GpuSourceError', message: /over 200000 samples/ })
  page = line(0)
  assert.deepEqual([await indexes(source), source.faults], [[0], []])

  const url = await serve(t, (_request, response) => response.writeHead(302, { location: '/elsewhere' }).end())
  await assert.rejects(new DcgmSource({ url }).read(), { message: /^Cannot read GPUs by DCGM: .*answered 302/ })
  const gone = new DcgmSource({ url: new URL('http://127.0.0.1:1/metrics') })
  await assert.rejects(gone.read(), { message: /ECONNREFUSED.*; start dcgm-exporter, or give its address with --dcgm/ })
})

test('a silent exporter costs the time limit, calls during a read share it, and closing ends it', async (t) => {
  let requests = 0
  const url = await serve(t, () => {
    requests += 1
  })
  const slow = new DcgmSource({ url, timeoutMs: 100 })
  const [a, b] = await Promise.allSettled([slow.read(), slow.read()])
  assert.deepEqual([a.status, b.status, requests], ['rejected', 'rejected', 1])
  assert.match(slow.faults.join(), /not whole within 0\.1 s; see what dcgm-exporter logs/)
  const source = new DcgmSource({ url })
  const reading = assert.rejects(source.read(), { name: 'GpuSourceError' })
  await source.close()
  await reading
})
