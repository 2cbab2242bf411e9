// The end of a request, however it comes: what a request occupies (a place among those that are processed at once) is
// released then.

import type { FastifyReply } from 'fastify'

/** Calls `release` once: when the response is sent, or when the client is gone before that. */
export function whenEnded(reply: FastifyReply, release: () => void): void {
  let isReleased = false
  const releaseOnce = () => {
    if (!isReleased) release()
    isReleased = true
  }
  reply.raw.once('finish', releaseOnce).once('close', releaseOnce)
}
