import { openDisk, readSmall, remove, stageFile, whatIs, writeFileAtomic } from "../files/disk.ts";
import type { ByteSource } from "../files/file.ts";
import { fingerprintOf } from "../files/fingerprint.ts";
import { paths } from "../files/node.ts";
import type { Fingerprint } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Piece } from "./pieces.ts";

/** Documents as ids, one after the other; the start token stands before each. */
export interface TokenFile {
  /** Ids of all documents. */
  readonly length: number;
  readonly documents: number;
  /** Where a document begins; `start(documents)` is the length. */
  start(document: number): number;
  /** Ids from … to−1. */
  slice(from: number, to: number): Promise<Int32Array>;
}

/** What a stored text says about itself, in its NAME.json; the files beside it are named by their hashes. */
export interface StoredHeader {
  readonly tokens: "lowbit";
  readonly version: 1;
  /** Hash of all that decides the ids: the sources, how they are read, the tokenizer. */
  readonly key: string;
  readonly sources: readonly Fingerprint[];
  /** SHA-256 of the tokenizer's files. */
  readonly tokenizer: string;
  /** Bytes of an id. */
  readonly width: 2 | 4;
  readonly documents: number;
  readonly ids: number;
  /** Documents that were left out because they are empty or white space. */
  readonly empty: number;
  readonly sha256: { readonly ids: string; readonly documents: string };
}

/**
 * A text as ids on disk, three files of one name:
 *
 *   NAME.ids    ids, little-endian, 16 bits each, or 32 where the vocabulary needs them
 *   NAME.docs   of each document: where it begins (f64), then of each its place (f64, see Piece), then its file (u32)
 *   NAME.json   a StoredHeader, written last
 */
export interface StoredTokens {
  readonly header: StoredHeader;
  /** The documents that are asked for, as if there were no others. */
  select(holds: (file: number, place: number) => boolean): TokenFile;
  close(): Promise<void>;
}

/** Bytes of the index for one document. */
const INDEX_BYTES = 20;
/** Ids that are collected before they are written. */
const BUFFERED = 2 ** 19;
const LARGEST_HEADER = 2 ** 26;
const LARGEST_INDEX = 2 ** 31;

/** What is known of a text before it is encoded. */
export type About = Pick<StoredHeader, "key" | "sources" | "tokenizer">;

export interface Encoding<P> {
  readonly vocabulary: number;
  /** Stands before each document. */
  readonly start?: number;
  readonly encode: (piece: P) => ArrayLike<number>;
}

/** Encodes documents and stores them as `path`.ids, .docs and .json. */
export async function writeTokens<P extends Pick<Piece, "file" | "end">>(
  path: string,
  about: About,
  pieces: AsyncIterable<P>,
  { vocabulary, start, encode }: Encoding<P>,
  onPiece: (piece: P, ids: number) => void = () => {},
): Promise<void> {
  const { createHash } = process.getBuiltinModule("node:crypto");
  const Ids = vocabulary <= 0x10000 ? Uint16Array : Int32Array;
  const width = Ids.BYTES_PER_ELEMENT as 2 | 4;
  const hash = createHash("sha256");
  const file = await stageFile(`${path}.ids`);
  try {
    const buffer = new Ids(BUFFERED);
    let [written, held, ids, empty] = [0, 0, 0, 0];
    const flush = async () => {
      const bytes = new Uint8Array(buffer.buffer, 0, held * width);
      hash.update(bytes);
      await file.write(bytes, written * width);
      written += held;
      held = 0;
    };
    const append = async (values: ArrayLike<number>) => {
      for (let i = 0; i < values.length; i++) {
        if (held === BUFFERED) await flush();
        buffer[held++] = values[i];
      }
      ids += values.length;
    };
    const [starts, places, files]: number[][] = [[], [], []];
    let begun = false;
    for await (const piece of pieces) {
      const { end } = piece;
      if (end?.empty) empty++;
      else {
        if (!begun) {
          starts.push(ids);
          files.push(piece.file);
          if (start !== undefined) await append([start]);
        }
        await append(encode(piece));
        begun = end === undefined;
        if (end) places.push(end.place);
      }
      onPiece(piece, ids);
    }
    await flush();
    const documents = starts.length;
    const index = new Uint8Array(documents * INDEX_BYTES);
    new Float64Array(index.buffer, 0, documents).set(starts);
    new Float64Array(index.buffer, 8 * documents, documents).set(places);
    new Uint32Array(index.buffer, 16 * documents, documents).set(files);
    const header: StoredHeader = {
      tokens: "lowbit",
      version: 1,
      ...about,
      width,
      documents,
      ids,
      empty,
      sha256: { ids: hash.digest("hex"), documents: createHash("sha256").update(index).digest("hex") },
    };
    await file.commit();
    await writeFileAtomic(`${path}.docs`, index);
    await writeFileAtomic(`${path}.json`, new TextEncoder().encode(`${JSON.stringify(header, null, 1)}\n`));
  } finally {
    await file.discard();
  }
}

/** What is stored as `path`; undefined for nothing. An InputError says how it differs from what `key` names, or what is damaged. */
export async function openTokens(path: string, key: string): Promise<StoredTokens | undefined> {
  if ((await whatIs(`${path}.json`)) !== "file") return undefined;
  const name = paths().basename(path);
  const header = headerFrom(name, await readSmall(`${path}.json`, LARGEST_HEADER));
  if (header.key !== key) {
    throw new InputError(
      `${name}.json: is of another text or tokenizer (key ${header.key.slice(0, 12)}, not ${key.slice(0, 12)})`,
    );
  }
  const index = await readSmall(`${path}.docs`, LARGEST_INDEX);
  const { createHash } = process.getBuiltinModule("node:crypto");
  check(`${name}.docs`, "bytes", index.byteLength, header.documents * INDEX_BYTES);
  check(`${name}.docs`, "SHA-256", createHash("sha256").update(index).digest("hex"), header.sha256.documents);
  const source = await openDisk(`${path}.ids`);
  try {
    check(`${name}.ids`, "bytes", source.byteLength, header.ids * header.width);
    check(`${name}.ids`, "SHA-256", (await fingerprintOf(undefined, [source])).sha256, header.sha256.ids);
  } catch (error) {
    await source.close();
    throw error;
  }
  const { documents } = header;
  const starts = new Float64Array(index.buffer, 0, documents);
  const places = new Float64Array(index.buffer, 8 * documents, documents);
  const files = new Uint32Array(index.buffer, 16 * documents, documents);
  return {
    header,
    select(holds) {
      const chosen: number[] = [];
      for (let d = 0; d < documents; d++) if (holds(files[d], places[d])) chosen.push(d);
      return new Selection(source, header, starts, Uint32Array.from(chosen));
    },
    close: () => source.close(),
  };
}

/** Removes a stored text; the header first, so that half of one is never taken for a whole. */
export async function removeTokens(path: string): Promise<void> {
  for (const ending of ["json", "docs", "ids"]) await remove(`${path}.${ending}`);
}

function headerFrom(name: string, bytes: Uint8Array): StoredHeader {
  let header: Partial<StoredHeader> | null;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new InputError(`${name}.json: is not JSON`);
  }
  const { tokens, key, version, width, sha256 } = header ?? {};
  if (
    tokens !== "lowbit" ||
    typeof key !== "string" ||
    version !== 1 ||
    !sha256 ||
    (width !== 2 && width !== 4)
  )
    throw new InputError(`${name}.json: is not of this version of lowbit`);
  return header as StoredHeader;
}

function check(name: string, what: string, met: unknown, said: unknown): void {
  if (met !== said) throw new InputError(`${name}: is damaged: ${what} ${met}, its header says ${said}`);
}

/** Some documents of a stored text, one after the other. */
class Selection implements TokenFile {
  readonly #source: ByteSource;
  readonly #width: 2 | 4;
  /** Of each document, where its ids are in the file, and here. */
  readonly #stored: Float64Array;
  readonly #starts: Float64Array;

  constructor(source: ByteSource, { ids, width }: StoredHeader, starts: Float64Array, chosen: Uint32Array) {
    this.#source = source;
    this.#width = width;
    this.#stored = new Float64Array(chosen.length);
    this.#starts = new Float64Array(chosen.length + 1);
    for (const [i, d] of chosen.entries()) {
      this.#stored[i] = starts[d];
      this.#starts[i + 1] = this.#starts[i] + (d + 1 < starts.length ? starts[d + 1] : ids) - starts[d];
    }
  }

  get length(): number {
    return this.#starts[this.documents];
  }

  get documents(): number {
    return this.#stored.length;
  }

  start(document: number): number {
    return this.#starts[document];
  }

  async slice(from: number, to: number): Promise<Int32Array> {
    if (from < 0 || to > this.length || from > to)
      throw new RangeError(`${this.#source.name}: ids ${from}…${to} asked for, holds ${this.length}`);
    const ids = new Int32Array(to - from);
    for (let at = from, d = this.#documentAt(from); at < to; ) {
      const begin = at;
      const shift = this.#stored[d] - this.#starts[d];
      // Documents that are neighbours in the file are read together.
      while (at < to && this.#stored[d] - this.#starts[d] === shift) at = Math.min(to, this.#starts[++d]);
      ids.set(await this.#read(begin + shift, at + shift), begin - from);
    }
    return ids;
  }

  /** Ids of the file. */
  async #read(from: number, to: number): Promise<ArrayLike<number>> {
    const bytes = Uint8Array.from(await this.#source.slice(from * this.#width, to * this.#width));
    return this.#width === 2 ? new Uint16Array(bytes.buffer) : new Int32Array(bytes.buffer);
  }

  /** The last document that begins at or before a place. */
  #documentAt(place: number): number {
    let [low, high] = [0, this.documents];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle] <= place) low = middle;
      else high = middle;
    }
    return low;
  }
}
