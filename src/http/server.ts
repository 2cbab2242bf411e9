// The HTTP server: routes over the processor, the store and the log. It keeps no state of its own. Everything is
// bounded (connections, time, bytes, requests of one connection), every error is a problem document, and the routes'
// schemas are description only: Fastify's validator would coerce (null to 0, "2" to 2) and its serializer would drop
// fields unknown to the schema, so both are replaced. To add routes: one file in routes/, one line in ROUTES.

import { randomUUID } from 'node:crypto'
import type { Server } from 'node:https'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyServerOptions } from 'fastify'
import type { WatchedFile } from '../runtime/watched-file.ts'
import { addAuth } from './access/auth.ts'
import type { Certificate } from './access/certificate.ts'
import { limitInFlight } from './access/in-flight.ts'
import { prefixRedirects, withoutBasePath } from './base-path.ts'
import type { HttpDependencies } from './dependencies.ts'
import { addMetricsRoute } from './metrics/metrics-route.ts'
import { addOpenApi } from './open-api.ts'
import { addPage } from './page.ts'
import { HttpProblem, handleError, rawProblem, sendProblem } from './problem.ts'
import { RouteTable } from './route-table.ts'
import { addCostRoutes } from './routes/cost-routes.ts'
import { addDeadLetterRoutes } from './routes/dead-letter-routes.ts'
import { addEventRoutes } from './routes/event-routes.ts'
import { addGpuRoutes } from './routes/gpu-routes.ts'
import { addHealthRoutes } from './routes/health-routes.ts'
import { addPriceRoutes } from './routes/price-routes.ts'
import { addSchemaRoutes } from './routes/schema-routes.ts'

export type { HttpDependencies } from './dependencies.ts'

const ROUTES: readonly ((app: FastifyInstance, dependencies: HttpDependencies) => void)[] = [
  addHealthRoutes,
  addMetricsRoute,
  addGpuRoutes,
  addEventRoutes,
  addCostRoutes,
  addPriceRoutes,
  addDeadLetterRoutes,
  addSchemaRoutes,
  addPage,
]

/** Time for a TLS handshake, headers, a whole request, a response, an idle connection, a silent one, and a drain. */
const HANDSHAKE_TIMEOUT_MS = 10_000
const HEADERS_TIMEOUT_MS = 10_000
const REQUEST_TIMEOUT_MS = 30_000
const HANDLER_TIMEOUT_MS = 30_000
const KEEP_ALIVE_TIMEOUT_MS = 5_000
const CONNECTION_TIMEOUT_MS = 60_000
const CLOSE_TIMEOUT_MS = 5_000
const MAX_CONNECTIONS = 1024
const MAX_REQUESTS_PER_SOCKET = 1000
/** Largest body where the route declares no other limit, bytes. */
const MAX_BODY_BYTES = 1024 * 1024
/** Ids in paths may contain a CloudEvent's source and id. */
const MAX_PARAM_LENGTH = 8192

const SECURITY_HEADERS = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cache-control': 'no-store',
}

/** Builds the server with all its routes; the caller listens on it, and closes it before its dependencies. */
export async function buildServer(dependencies: HttpDependencies): Promise<FastifyInstance> {
  const { certificate, basePath = '' } = dependencies
  const sockets = { headersTimeout: HEADERS_TIMEOUT_MS, connectionsCheckingInterval: 5_000 }
  const options: FastifyServerOptions = {
    logger: false,
    rewriteUrl: withoutBasePath(basePath),
    genReqId: () => randomUUID(),
    bodyLimit: MAX_BODY_BYTES,
    connectionTimeout: CONNECTION_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    handlerTimeout: HANDLER_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    maxRequestsPerSocket: MAX_REQUESTS_PER_SOCKET,
    // Requests in flight during a drain are processed; the connection closes after them.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    frameworkErrors: (_error, _request, reply) => {
      const detail = 'The path is not a valid URL path: check its percent-encoding'
      reply.headers(SECURITY_HEADERS)
      sendProblem(reply as FastifyReply, new HttpProblem(400, 'bad-request', { detail }))
    },
    clientErrorHandler: (error, socket) => {
      // After a failed handshake no response can be sent.
      if (socket.writable && !error.code?.startsWith('ERR_SSL')) socket.end(rawProblem(error))
      else socket.destroy()
    },
  }
  const app = withServer(options, sockets, certificate)
  app.server.maxConnections = MAX_CONNECTIONS
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => (body) => JSON.stringify(body))
  app.removeAllContentTypeParsers()
  limitInFlight(app)
  app.addHook('onRequest', async (_request, reply) => void reply.headers(SECURITY_HEADERS))
  app.setErrorHandler(handleError(dependencies.logger))
  addAuth(app, dependencies)
  handleUnknown(app, basePath)
  closeInTime(app)
  followFiles(app, dependencies)
  prefixRedirects(app, basePath)
  await addOpenApi(app, dependencies)
  for (const addRoutes of ROUTES) addRoutes(app, dependencies)
  await app.ready()
  return app
}

/** An HTTPS server where there is a certificate, else an HTTP server: routes see no difference. */
function withServer(
  options: FastifyServerOptions,
  sockets: object,
  certificate: WatchedFile<Certificate> | undefined,
): FastifyInstance {
  if (certificate === undefined) return Fastify({ ...options, http: sockets })
  const https = { ...sockets, ...certificate.value, handshakeTimeout: HANDSHAKE_TIMEOUT_MS }
  return Fastify({ ...options, https } as FastifyServerOptions)
}

/** Reloads tokens and certificate whenever their files change, until the server closes. */
function followFiles(app: FastifyInstance, { access, certificate }: HttpDependencies): void {
  access?.tokens.watch()
  certificate?.watch((changed) => (app.server as Server).setSecureContext(changed))
  app.addHook('onClose', async () => {
    access?.tokens.close()
    certificate?.close()
  })
}

/** 404 for paths that do not exist, 405 with `Allow` for those that do. */
function handleUnknown(app: FastifyInstance, basePath: string): void {
  const routes = new RouteTable()
  app.addHook('onRoute', ({ method, url }) => routes.add(method, url))
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!
    const allowed = routes.methodsOf(path)
    const shown = JSON.stringify(path.slice(0, 200))
    if (allowed.length === 0 || allowed.includes(request.method)) {
      const detail = `Nothing is at ${shown}: ${basePath}/openapi.json lists what there is`
      return sendProblem(reply, new HttpProblem(404, 'not-found', { detail }))
    }
    const allow = allowed.join(', ')
    const detail = `${request.method} is not possible on ${shown}: use ${allow}`
    return sendProblem(reply, new HttpProblem(405, 'method-not-allowed', { detail, headers: { allow } }))
  })
}

/** Closes connections that are still busy CLOSE_TIMEOUT_MS after a close began. */
function closeInTime(app: FastifyInstance): void {
  let timer: NodeJS.Timeout | undefined
  app.addHook('preClose', async () => {
    timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_TIMEOUT_MS).unref()
  })
  app.addHook('onClose', async () => clearTimeout(timer))
}
