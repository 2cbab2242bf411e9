// What YAML takes for something else than its writer meant: a bare `*H100*` is a reference to an anchor, `&H100` an
// anchor, `!H100` a tag, `0x10` the number 16, and `10` no text. Each is reported with its line and with how it is to
// be written, beside all that is wrong with the value as it was read.

import { type Document, isNode, isPair, isScalar, isSeq, type Node, type Pair, Scalar, visit } from 'yaml'
import type { Problem } from '../../domain/prices/schema-errors.ts'

/** A place in a document: its JSON pointer and its offset in the text. */
interface Slip {
  path: string
  offset: number
  value: string
  expected: string
}

/**
 * The first slips of a document in the order of its text, and how many more there are. References that lead nowhere
 * become the text that was written, so that the rest of the document can be read.
 */
export function takeSlips(document: Document.Parsed, limit: number): { slips: Slip[]; more: number } {
  const slips: Slip[] = []
  let more = 0
  const anchors = new Set<string>()
  const add = (node: Node, trail: Trail, value: string, expected: string) => {
    // To find a node's pointer takes as long as the lists around it.
    if (slips.length === limit) more++
    else slips.push({ path: pointerTo(node, trail), offset: node.range?.[0] ?? 0, value, expected })
  }
  visit(document, {
    Alias(_key, node, trail) {
      if (anchors.has(node.source)) return undefined
      const text = `*${node.source}`
      add(node, trail, text, `quotes around it, as "${text}": bare, YAML takes what begins with * for a reference`)
      const meant = new Scalar(text)
      meant.range = node.range ?? null
      return meant
    },
    Collection(_key, node) {
      if (node.anchor !== undefined) anchors.add(node.anchor)
    },
    Scalar(_key, node, trail) {
      if (node.anchor !== undefined) {
        anchors.add(node.anchor)
        if (node.value === null && node.source === '') {
          const text = `&${node.anchor}`
          add(node, trail, text, `quotes around it, as "${text}": bare, YAML takes what begins with & for an anchor`)
        }
      }
      if (node.format === 'HEX' || node.format === 'OCT') {
        const source = node.source ?? ''
        add(node, trail, source, `a decimal number, since YAML reads this as ${node.value}; text goes in quotes`)
      }
    },
  })
  return { slips, more }
}

/** A problem of the value with how it is to be written in YAML, where its type is what is wrong. */
export function withSpelling(problem: Problem, node: unknown): Problem {
  if (!isScalar(node)) return problem
  const { expected } = problem
  const isText = typeof node.value === 'string'
  if (!isText && /^text\b/.test(expected)) return { ...problem, expected: `${expected}, in quotes` }
  if (isText && /^a (whole )?number\b/.test(expected) && /\d/.test(String(node.value))) {
    return { ...problem, expected: `${expected}, digits with a decimal point and without quotes` }
  }
  return problem
}

/** What to add to a syntax error on a line where a value begins with one of YAML's own characters; else ''. */
export function syntaxHint(line: string): string {
  const sign = /(?:^|[:,[{-])\s*([*&!%@`])/.exec(line)?.[1]
  return sign === undefined ? '' : `; a value that begins with ${sign} goes in quotes`
}

type Trail = readonly (Document | Node | Pair)[]

function pointerTo(node: Node, trail: Trail): string {
  const nodes = [...trail, node]
  return nodes
    .map((parent, i) => {
      const child = nodes[i + 1]
      if (child === undefined) return ''
      if (isSeq(parent)) return `/${parent.items.indexOf(child)}`
      if (!isPair(parent)) return ''
      const name = String(isNode(parent.key) && isScalar(parent.key) ? parent.key.value : parent.key)
      return `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
    })
    .join('')
}
