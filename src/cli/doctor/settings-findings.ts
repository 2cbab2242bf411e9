// Checks of `doctor`: settings, beyond what loading them rejects. A missing address of Kafka or MongoDB, which is no
// mistake in itself (the embedded log or store is used then), names in `.env` that nearly match a setting, and
// what in `.env` is not read.

import { kindOfName, type LoadedConfig } from '../config.ts'
import { parseEnvFile } from '../env-file.ts'
import { type Config, OPTIONS, type OptionName } from '../options.ts'
import type { Finding } from './finding.ts'

/** Largest edit distance at which a name is taken for a misspelt setting. */
const MAX_SLIPS = 2
/** Shorter names are close to too many words. */
const MIN_NAME = 8

interface SettingsCheck {
  /** Text of `.env`. */
  envFile: string
  /** This machine only publishes, so it has no store. */
  isProducer: boolean
}

export function checkSettings(
  { config, sources }: Pick<LoadedConfig, 'config' | 'sources'>,
  { envFile, isProducer }: SettingsCheck,
): Finding[] {
  const unset = (Object.keys(OPTIONS) as OptionName[]).filter((name) => sources[name] === 'default')
  const { values, remarks } = parseEnvFile(envFile, kindOfName)
  const slips = Object.keys(values).flatMap((name) => {
    const meant = Object.hasOwn(OPTIONS, name) ? undefined : unset.find((option) => isMeant(name, option))
    return meant === undefined ? [] : [wrong(`.env sets ${name}, which is no setting: did you mean ${meant}?`)]
  })
  const odd = remarks.map((message): Finding => ({ part: 'settings', ok: null, message }))
  return [...slips, ...odd, ...(isProducer ? [] : missingAddress(config))]
}

function isMeant(name: string, option: OptionName): boolean {
  if (name.toUpperCase() === option) return true
  if (name === `${option}_FILE` || name.length < MIN_NAME) return false
  // KAFKA_BOOTSTRAP_SERVERS, MONGO_URL_PROD: only of settings that have no default.
  if (OPTIONS[option].default === null && option.length >= MIN_NAME && name.startsWith(`${option}_`)) return true
  return distance(name, option) <= MAX_SLIPS
}

function missingAddress({ KAFKA_BOOTSTRAP: kafka, MONGO_URL: mongo, DATA_DIR: directory }: Config): Finding[] {
  if ((kafka === null) === (mongo === null)) return []
  const message =
    kafka === null
      ? `KAFKA_BOOTSTRAP is not set, so the log is the embedded one in ${directory}: set it where events come through Kafka`
      : `MONGO_URL is not set, so the store is the embedded one in ${directory}: a processor wants it, for a machine that only publishes there is doctor --producer`
  return [{ part: 'settings', ok: null, message }]
}

function wrong(message: string): Finding {
  return { part: 'settings', ok: false, message }
}

/** Edit distance of two texts (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const above = row
    row = [i]
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
  }
  return row[b.length]!
}
