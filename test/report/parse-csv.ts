// A reader of RFC 4180 for tests, written apart from src/: what it reads back is what was meant.

/** Lines of cells. Throws where the text is no CSV. */
export function parseCsv(text: string): string[][] {
  const lines: string[][] = []
  let line: string[] = []
  let at = 0
  while (at < text.length) {
    let cell = ''
    if (text[at] === '"') {
      for (at++; text[at] !== '"' || text[at + 1] === '"'; at += text[at] === '"' ? 2 : 1) {
        if (at >= text.length) throw new Error('A quoted cell does not end')
        cell += text[at]
      }
      at++
    } else {
      while (at < text.length && text[at] !== ',' && text[at] !== '\r') {
        if (text[at] === '"' || text[at] === '\n')
          throw new Error(`Cell with ${JSON.stringify(text[at])} is not quoted`)
        cell += text[at++]
      }
    }
    line.push(cell)
    if (text[at] === ',') {
      at++
      if (at === text.length) line.push('')
    } else if (text.startsWith('\r\n', at)) {
      at += 2
      lines.push(line)
      line = []
    } else throw new Error(`Expected , or a line end at ${at}`)
  }
  if (line.length > 0) throw new Error('The last line does not end')
  return lines
}
