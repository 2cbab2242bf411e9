// The address of a page of metrics as it is configured.

/** For example `http://box:9400`, which is `http://box:9400/metrics`; null where it is no address of http or https. */
export function parsePageUrl(text: string): URL | null {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !/^https?:$/.test(url.protocol)) return null
  if (url.pathname === '/') url.pathname = '/metrics'
  url.hash = ''
  return url
}
