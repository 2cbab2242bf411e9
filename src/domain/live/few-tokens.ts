// How many tokens a cost of a million tokens needs before it means anything. A GPU's hour over a test request of twelve
// tokens is thousands of dollars a million: true, and no price of anything. Where people read, such a figure is words;
// money and tokens stay. Programs get the exact figure and a flag.

/** The least tokens, prompt and completion, of a figure that is shown as one. */
const MIN_TOKENS = 1000
/** The same of a live figure: it covers half a minute, and a single stream makes a few hundred tokens in that. */
const MIN_LIVE_TOKENS = 100

/** What stands in its place. */
export const TOO_FEW_TOKENS = 'too few tokens'

/** Whether there are tokens, and too few of them. Without any there is no figure at all. */
export function areTooFew(tokens: number | bigint): boolean {
  return tokens > 0 && tokens < MIN_TOKENS
}

/** The same for the tokens of the live window. */
export function areTooFewLive(tokens: number): boolean {
  return tokens > 0 && tokens < MIN_LIVE_TOKENS
}
