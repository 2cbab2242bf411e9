// The one definition of a price book, from which the type, the validator and the published JSON Schema are derived. The
// same shape is what operators write (YAML or JSON), what the API takes and what the store keeps as a version. Bounds
// are wide, but there: every figure must fit an integer of 10⁻⁹ USD, and a typing mistake should show. What one field
// alone does not show (overlaps, reversed ranges, the sense of a match) is checked in price-book-check.ts.

import Type from 'typebox'

/** The most rules that a book may have. */
const MAX_PRICE_RULES = 10_000
/** The most hosts with aliases that a book may have, and aliases of one. */
const MAX_HOSTS = 10_000
const MAX_ALIASES = 100
/** What a GPU costs where nothing else is known, USD per hour. */
export const DEFAULT_USD_PER_HOUR = 0.85

const closed = { additionalProperties: false }

const Text = (description: string) => Type.String({ minLength: 1, maxLength: 256, description })
const Usd = (maximum: number, description: string) => Type.Number({ minimum: 0, maximum, description })
const Weight = (description: string) => Type.Number({ minimum: 0, maximum: 1000, description })
const Instant = (description: string) => Type.String({ minLength: 1, maxLength: 40, description })

/** Which GPUs a rule is for: a uuid (with or without its slot), a slot, a host, or a pattern of GPU names. */
const PriceMatchSchema = Type.Object(
  {
    uuid: Type.Optional(Text('UUID of the GPU')),
    host: Type.Optional(Text('Name of the host')),
    gpu_index: Type.Optional(Type.Integer({ minimum: 0, maximum: 1023, description: 'Index of the GPU on its host' })),
    name: Type.Optional(Text('Model name of the GPU; * stands for any text')),
  },
  { ...closed, minProperties: 1 },
)

const common = {
  id: Text('Name of the rule, unique in the book'),
  match: PriceMatchSchema,
  from: Type.Optional(Instant('First instant that the rule is in force, ISO 8601; absent: since ever')),
  to: Type.Optional(Instant('First instant that it is no longer in force, ISO 8601; absent: for ever')),
}

/** A rule with a price per hour. */
const RentedRuleSchema = Type.Object(
  {
    ...common,
    kind: Type.Union([Type.Literal('on-demand'), Type.Literal('spot'), Type.Literal('reserved')]),
    usd_per_hour: Usd(1e6, 'Price of one GPU, USD per hour'),
  },
  closed,
)

/** A rule for GPUs that are owned: (purchase − salvage) ÷ life + energy × PUE × USD/kWh. */
const OwnedRuleSchema = Type.Object(
  {
    ...common,
    kind: Type.Literal('owned'),
    purchase_usd: Usd(1e9, 'Price of purchase of one GPU with its share of the machine, USD'),
    salvage_usd: Type.Optional(Usd(1e9, 'What it is worth at the end of its life, USD; 0 when absent')),
    life_hours: Type.Optional(Type.Number({ minimum: 1, maximum: 1e6, description: 'Life, hours' })),
    life_years: Type.Optional(Type.Number({ minimum: 0.001, maximum: 100, description: 'Life, years of 8,760 hours' })),
    usd_per_kwh: Type.Optional(Usd(1000, 'Price of electricity, USD per kWh; 0 when absent')),
    pue: Type.Optional(
      Type.Number({ minimum: 1, maximum: 10, description: 'Power usage effectiveness of the site; 1 when absent' }),
    ),
  },
  closed,
)

/** One host under several names: a container's, a machine's short one, its full one. */
const HostNamesSchema = Type.Object(
  {
    name: Text('The name that the ledger, reports and rules have'),
    aliases: Type.Array(Text('Another name that events have for the same host'), {
      minItems: 1,
      maxItems: MAX_ALIASES,
      description: 'Its other names; samples and tokens under any of them are of the one host',
    }),
  },
  closed,
)

const PriceRuleSchema = Type.Union([RentedRuleSchema, OwnedRuleSchema])

const WeightsSchema = Type.Object(
  {
    input: Type.Optional(Weight('Weight of an input token that was computed; 1 when absent')),
    cached: Type.Optional(Weight('Weight of an input token that came from a cache; 1 when absent')),
    output: Type.Optional(Weight('Weight of an output token; 1 when absent')),
  },
  closed,
)

const LimitsSchema = Type.Object(
  {
    max_sample_gap_s: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 90,
        description: 'G: how far back a sample covers, seconds; 90 when absent',
      }),
    ),
    max_models_per_cell: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 1000, description: 'Models of a host and minute by name; 32 when absent' }),
    ),
    max_tenants_per_cell: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 10_000,
        description: 'Tenants of a host and minute by name; 100 when absent',
      }),
    ),
  },
  closed,
)

/** One entry of the book's default over time. */
const DefaultPriceSchema = Type.Object(
  {
    from_ms: Type.Union([Type.Null(), Type.Integer({ minimum: 0, maximum: 8.64e15 })], {
      description: 'First instant that it counts, epoch milliseconds; null: since ever',
    }),
    usd_per_hour: Usd(1e6, 'USD per hour'),
  },
  closed,
)

/** A price book as it is written, sent and stored. */
export const PriceBookSchema = Type.Object(
  {
    currency: Type.Literal('USD', { description: 'Currency of all figures' }),
    default_usd_per_hour: Type.Optional(Usd(1e6, 'Price where neither a rule nor a sample tells one, USD per hour')),
    defaults: Type.Optional(
      Type.Array(DefaultPriceSchema, {
        minItems: 1,
        maxItems: MAX_PRICE_RULES,
        description: 'The default over time, kept by pertoken; instead of default_usd_per_hour',
      }),
    ),
    weights: Type.Optional(WeightsSchema),
    limits: Type.Optional(LimitsSchema),
    hosts: Type.Optional(
      Type.Array(HostNamesSchema, { maxItems: MAX_HOSTS, description: 'Hosts that events have several names for' }),
    ),
    rules: Type.Array(PriceRuleSchema, { maxItems: MAX_PRICE_RULES, description: 'The rules, in any order' }),
  },
  { ...closed, $id: 'price-book.v1', title: 'Price book', description: 'What GPUs cost, and when' },
)

export type PriceMatch = Type.Static<typeof PriceMatchSchema>
export type PriceRuleData = Type.Static<typeof PriceRuleSchema>
export type DefaultPrice = Type.Static<typeof DefaultPriceSchema>
export type PriceBookDocument = Type.Static<typeof PriceBookSchema>
