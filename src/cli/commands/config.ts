// `pertoken config --print`: every setting with its effective value, unit, default and source; secrets masked.

import { type Command, UsageError } from '../command.ts'
import { shown } from '../config.ts'
import { OPTIONS, type OptionName } from '../options.ts'

export const config: Command = {
  usage: '--print [--json]',
  flags: { print: { help: 'Prints the settings' }, json: { help: 'Prints them as JSON' } },
  options: Object.keys(OPTIONS) as OptionName[],
  async run({ config: values, loaded, flags, print }) {
    if (flags['print'] === undefined && flags['json'] === undefined)
      throw new UsageError('Nothing to do: expected --print')
    const rows = (Object.keys(OPTIONS) as OptionName[]).map((name) => {
      const option = OPTIONS[name]
      const unit = 'unit' in option ? option.unit : null
      return {
        name,
        value: shown(name, values[name]),
        unit,
        default: option.default as string | number | null,
        source: loaded.sources[name],
        help: option.help,
      }
    })
    if (flags['json'] !== undefined) {
      print(`${JSON.stringify(rows, null, 2)}\n`)
      return 0
    }
    for (const row of rows) {
      const value = `${row.name}=${row.value ?? ''}${row.unit === null ? '' : ` ${row.unit}`}`
      print(`${value.padEnd(52)} # ${row.source}; default ${row.default ?? 'unset'}. ${row.help}\n`)
    }
    return 0
  },
}
