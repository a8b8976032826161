import { open } from "node:fs/promises";

const PIECE = 1 << 20;
/** A longer line is no line of ours. */
const LONGEST_LINE = 1 << 24;

/**
 * The lines of a JSONL file that grows, is cut off and grows again, as a run
 * that is interrupted and resumed writes it. Only what is new is read.
 */
export class Tail<Line extends { readonly step: number }, Aside = never> {
  readonly #path: string;
  readonly #parse: (value: unknown) => Line | undefined;
  readonly #parseAside: (value: unknown) => Aside | undefined;
  #lines: Line[] = [];
  #asides: Aside[] = [];
  #revision = 0;
  /** Bytes whose lines are known. */
  #bytes = 0;

  /** `parse` says undefined to what is not a line, `aside` to what is none of those that stand between them. */
  constructor(
    path: string,
    parse: (value: unknown) => Line | undefined,
    aside: (value: unknown) => Aside | undefined = () => undefined,
  ) {
    this.#path = path;
    this.#parse = parse;
    this.#parseAside = aside;
  }

  /** In the order of their steps. */
  get lines(): readonly Line[] {
    return this.#lines;
  }

  /** What stands between the lines. */
  get asides(): readonly Aside[] {
    return this.#asides;
  }

  /** Another number whenever lines that were known before are no longer so. */
  get revision(): number {
    return this.#revision;
  }

  async refresh(): Promise<void> {
    const file = await open(this.#path, "r").catch(() => undefined);
    if (!file) return this.#restart();
    try {
      const { size } = await file.stat();
      if (size < this.#bytes) this.#restart();
      const goesOn = await this.#readFrom(file, size);
      if (goesOn) return;
      this.#restart();
      await this.#readFrom(file, size, true);
    } finally {
      await file.close();
    }
  }

  #restart(): void {
    if (this.#bytes > 0) this.#revision++;
    this.#bytes = 0;
    this.#lines = [];
    this.#asides = [];
  }

  /** Reads whole lines up to `size`; false when they do not follow from what is known, unless `anyhow`. */
  async #readFrom(file: Awaited<ReturnType<typeof open>>, size: number, anyhow = false): Promise<boolean> {
    const decoder = new TextDecoder();
    let rest: Uint8Array<ArrayBufferLike> = new Uint8Array();
    for (let at = this.#bytes; at < size; ) {
      const piece = new Uint8Array(Math.min(PIECE, size - at));
      const { bytesRead } = await file.read(piece, 0, piece.length, at);
      if (bytesRead === 0) break;
      at += bytesRead;
      const bytes = joined(rest, piece.subarray(0, bytesRead));
      let from = 0;
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
        const isKnown = this.#take(decoder.decode(bytes.subarray(from, end)));
        if (!isKnown && !anyhow) return false;
        this.#bytes += end + 1 - from;
        from = end + 1;
      }
      rest = bytes.subarray(from);
      if (rest.length > LONGEST_LINE) break;
    }
    return true;
  }

  /** Whether a line is one, of a later step than those before, or stands between them. */
  #take(text: string): boolean {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return false;
    }
    const aside = this.#parseAside(value);
    if (aside !== undefined) {
      this.#asides.push(aside);
      return true;
    }
    const line = this.#parse(value);
    if (!line || line.step <= (this.#lines.at(-1)?.step ?? -2)) return false;
    this.#lines.push(line);
    return true;
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  if (a.length === 0) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
