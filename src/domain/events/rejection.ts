// Why a record can never become a document. A rejection is data, not an exception: the record goes to the dead letters
// with its reason, position and bytes, and the records around it are processed. The reason codes are published (header
// `reason`, metrics label, API): add to them, never rename one.

/** Every reason to reject a record or a posted event. */
export const REASON_CODES = {
  tombstone: 'The record has no value (null)',
  empty_value: 'The record has a value of zero bytes',
  too_large: 'The record is larger than 1 MiB',
  not_utf8: 'The value is not valid UTF-8',
  not_json: 'The value is not JSON',
  not_an_object: 'The value is JSON, but not an object',
  too_deep: 'The event nests deeper than 32 levels',
  missing_field: 'A required field is missing',
  wrong_type: 'A field has the wrong type',
  out_of_range: 'A field is outside its bounds',
  forbidden_field: 'A field has a name that cannot be stored',
  duplicate_field: 'A field is there twice',
  bad_timestamp: 'ts is neither an ISO 8601 time nor epoch milliseconds',
  too_old: 'ts is before 2015',
  too_far_ahead: 'ts is more than one hour ahead of the time of the record',
  cached_exceeds_prompt: 'cached_prompt_tokens is larger than prompt_tokens',
  bad_cloudevent: 'The CloudEvents envelope is wrong',
  day_closed: 'The day of ts is closed by retention',
} as const

/** One of the published reason codes. */
export type ReasonCode = keyof typeof REASON_CODES

/** One thing that is wrong: `path` is a JSON pointer into the event, '' for the event itself. */
export interface Issue {
  reason: ReasonCode
  path: string
  message: string
}

/** The most issues that one rejection lists. */
const MAX_ISSUES = 20

/** A record that is rejected for good, with all that is wrong; `reason` and `message` are those of the first issue. */
export class Rejection {
  readonly issues: readonly Issue[]

  constructor(issues: readonly Issue[]) {
    this.issues = issues.slice(0, MAX_ISSUES)
  }

  static of(reason: ReasonCode, message: string, path = ''): Rejection {
    return new Rejection([{ reason, path, message }])
  }

  get reason(): ReasonCode {
    return this.issues[0]!.reason
  }

  /** One line: every issue, with its path. */
  get message(): string {
    return this.issues.map((issue) => (issue.path ? `${issue.path}: ${issue.message}` : issue.message)).join('; ')
  }
}
