// A character (grapheme) of East Asian writing and an emoji take two columns.
const WIDE =
  /^(?:\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1b000}-\u{1b2ff}\u{20000}-\u{3fffd}])/u;
const graphemes = new Intl.Segmenter("en");

/** A table as text: columns as wide as they need, numbers to the right, words to the left. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows].map((cells) => cells.map(printable));
  const widths = header.map((_, c) => lines.reduce((widest, cells) => Math.max(widest, width(cells[c])), 0));
  const right = header.map((_, c) => rows.every((row) => row[c] === "" || /^[-+±−]?[\d.]/.test(row[c])));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, c) => {
        const space = " ".repeat(widths[c] - width(cell));
        return right[c] ? space + cell : cell + space;
      })
      .join("  ")
      .trimEnd();
  const rule = widths.map((width) => "─".repeat(width)).join("  ");
  const [title, ...body] = lines.map(line);
  return [title, rule, ...body].join("\n");
}

/** Columns that a line of printable text takes. */
export function width(text: string): number {
  let columns = 0;
  for (const { segment } of graphemes.segment(text)) columns += WIDE.test(segment) ? 2 : 1;
  return columns;
}

/** The beginning of a line that takes at most so many columns. */
export function cut(text: string, columns: number): string {
  let taken = 0;
  for (const { segment, index } of graphemes.segment(text)) {
    taken += WIDE.test(segment) ? 2 : 1;
    if (taken > columns) return text.slice(0, index);
  }
  return text;
}

/** Names come from strangers' files: what would move the cursor or change colors is shown as �. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");
}
