import { openDisk } from "../files/disk.ts";
import type { ByteSource } from "../files/file.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import type { SourceFile } from "./corpus.ts";
import { parquetRows } from "./parquet.ts";

/** A part of a document, as it comes from its file; the parts of a document are its text. */
export interface Part {
  /** Index of the file. */
  readonly file: number;
  readonly text: string;
  /** Whether the document ends here. */
  readonly last: boolean;
  /** Bytes of all files that have been read. */
  readonly read: number;
}

export interface Reading {
  /** Key or column that holds the text. */
  readonly field: string;
  /** What stands between the documents of a text file. */
  readonly separator?: string;
}

/** Bytes that are read at once. */
const PIECE = 2 ** 20;
/** A line of JSON is held as a whole, with what is made of it. */
const LONGEST_LINE = 2 ** 26;

/**
 * The documents of files, part by part, in constant memory. An InputError
 * names the file, and the line or row, that is not what it should be.
 */
export async function* documents(
  files: readonly SourceFile[],
  reading: Reading,
  job: Job = {},
): AsyncGenerator<Part> {
  let before = 0;
  for (const [f, file] of files.entries()) {
    const source = await openDisk(file.path);
    try {
      for await (const { text, last, read } of readers[file.kind](source, reading, job)) {
        job.signal?.throwIfAborted();
        yield { file: f, text, last, read: before + read };
      }
      before += source.byteLength;
    } finally {
      await source.close();
    }
  }
}

type Reader = (source: ByteSource, reading: Reading, job: Job) => AsyncGenerator<Omit<Part, "file">>;

const readers: Readonly<Record<SourceFile["kind"], Reader>> = {
  text: (source, { separator }) =>
    separator === undefined ? wholeText(source) : separated(source, separator),
  jsonl: (source, { field }) => jsonLines(source, field),
  parquet: (source, { field }, job) => parquetRows(source, field, job),
};

async function* wholeText(source: ByteSource): AsyncGenerator<Omit<Part, "file">> {
  for await (const { text, read } of decoded(source)) yield { text, read, last: read === source.byteLength };
}

async function* separated(source: ByteSource, separator: string): AsyncGenerator<Omit<Part, "file">> {
  let rest = "";
  for await (const { text, read } of decoded(source)) {
    const pieces = (rest + text).split(separator);
    rest = pieces.pop()!;
    for (const piece of pieces) yield { text: piece, read, last: true };
    if (read === source.byteLength) break;
    let held = Math.max(0, rest.length - separator.length + 1); // what follows may be the start of a separator
    if (isLowSurrogate(rest.charCodeAt(held))) held--;
    if (held > 0) yield { text: rest.slice(0, held), read, last: false };
    rest = rest.slice(Math.max(0, held));
  }
  yield { text: rest, read: source.byteLength, last: true };
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000;
}

async function* jsonLines(source: ByteSource, field: string): AsyncGenerator<Omit<Part, "file">> {
  let rest = "";
  let line = 0;
  for await (const { text, read } of decoded(source)) {
    const lines = (rest + text).split("\n");
    rest = read === source.byteLength ? "" : lines.pop()!;
    if (rest.length > LONGEST_LINE) {
      throw new InputError(
        `${source.name} line ${line + lines.length + 1}: is longer than ${LONGEST_LINE} characters; split it into documents`,
      );
    }
    for (const json of lines) {
      line++;
      if (json.trim() !== "")
        yield { text: fieldOf(json, field, `${source.name} line ${line}`), read, last: true };
    }
  }
}

function fieldOf(json: string, field: string, where: string): string {
  let row: unknown;
  try {
    row = JSON.parse(json);
  } catch {
    throw new InputError(`${where}: needs an object in JSON, met ${shown(json)}; is the file JSONL?`);
  }
  if (typeof row !== "object" || row === null || Array.isArray(row))
    throw new InputError(`${where}: needs an object in JSON, met ${shown(json)}; is the file JSONL?`);
  const text = (row as Record<string, unknown>)[field];
  if (typeof text === "string") return text.toWellFormed();
  if (text === null) return "";
  const met =
    text === undefined
      ? `none; it has ${Object.keys(row).slice(0, 8).join(", ")}`
      : shown(JSON.stringify(text));
  throw new InputError(`${where}: needs a text in ${JSON.stringify(field)}, met ${met}; set data.field`);
}

function shown(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

/** The text of a file piece by piece, without a byte order mark; at least one piece, the last when all is read. */
async function* decoded(source: ByteSource): AsyncGenerator<{ text: string; read: number }> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let from = 0, to = 0; ; from = to) {
    to = Math.min(from + PIECE, source.byteLength);
    const bytes = await source.slice(from, to);
    const zero = bytes.indexOf(0);
    if (zero >= 0)
      throw new InputError(`${source.name}: needs text, met byte 0 at ${from + zero}; is it binary?`);
    let text: string;
    try {
      text = decoder.decode(bytes, { stream: to < source.byteLength });
    } catch {
      throw new InputError(
        `${source.name}: needs UTF-8 text, met bytes that are not between ${from} and ${to}; convert it first`,
      );
    }
    yield { text, read: to };
    if (to === source.byteLength) return;
  }
}
