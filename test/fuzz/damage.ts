import type { Random } from "../../src/tensor/random.ts";

/**
 * Where a grammar asks for chance. Every number, word and list of a valid
 * file passes through here on its way into the file; each is replaced, with
 * probability `rate`, by one that hurts: a count of 2^60, a name that occurs
 * twice, a length that leaves the file.
 */
export class Damage {
  readonly random: Random;
  readonly rate: number;

  constructor(random: Random, rate: number) {
    this.random = random;
    this.rate = rate;
  }

  fires(share = 1): boolean {
    return this.random() < this.rate * share;
  }

  /** A whole number, low … high. */
  whole(low: number, high: number): number {
    return low + Math.floor(this.random() * (high - low + 1));
  }

  pick<T>(list: readonly T[]): T {
    return list[this.whole(0, list.length - 1)];
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  /** A count, length, offset or id. */
  number(n: number): number {
    if (!this.fires()) return n;
    return this.pick([n - 1, n + 1, 2 * n, n + 8, n - 8, -n, 0, 1, ...HURTING]);
  }

  /** A number of floating point. */
  float(x: number): number {
    return this.fires() ? this.pick([NaN, Infinity, -Infinity, 1e38, -1e38, 1e-45, -0]) : x;
  }

  text(s: string): string {
    if (!this.fires()) return s;
    return this.pick([
      "",
      `${s}${s}`,
      `${s}\n`,
      `\u001b[2J${s}`,
      "\u2028",
      "\ud800",
      "\ufeff",
      "\u0000",
      "__proto__",
      "constructor",
      "toString",
      "../../x",
      s.repeat(2000),
      "é".repeat(700),
      s.toUpperCase(),
      s.slice(1),
    ]);
  }

  /** A list with an item twice, gone, at another place, or all of them gone. */
  list<T>(items: readonly T[]): T[] {
    const copy = [...items];
    if (!this.fires() || copy.length === 0) return copy;
    const [i, j] = [this.whole(0, copy.length - 1), this.whole(0, copy.length - 1)];
    switch (this.whole(0, 3)) {
      case 0:
        copy.splice(i, 0, copy[j]);
        break;
      case 1:
        copy.splice(i, 1);
        break;
      case 2:
        [copy[i], copy[j]] = [copy[j], copy[i]];
        break;
      default:
        copy.length = 0;
    }
    return copy;
  }

  /** Any value of a JSON file. */
  json(value: unknown): unknown {
    if (!this.fires()) return value;
    const number = typeof value === "number" ? value : 1;
    return this.pick<() => unknown>([
      () => null,
      () => true,
      () => "",
      () => [],
      () => ({}),
      () => [value],
      () => ({ value }),
      () => [value, value],
      () => String(value),
      () => this.pick([number - 1, number + 1, -number, 0, number + 0.5, ...HURTING]),
      () => this.text(String(value)),
      () => new Raw("1e999"),
      () => new Raw("-0"),
      () => new Raw('{"a":1,"a":2}'),
      () => new Raw(nested(this.pick([50, 101, 1000, 20000]))),
      () => new Raw(this.pick(["nul", "[1,]", "'a'", "01", "", "\u0000", '"\n"'])),
    ])();
  }

  /** The whole file: cut, changed in some bytes, a piece doubled, taken out, turned round. Marks are where its fields end. */
  bytes(bytes: Uint8Array, marks: readonly number[] = []): Uint8Array {
    if (!this.fires(4) || bytes.length === 0) return bytes;
    const at = () =>
      marks.length > 0 && this.chance(0.5) ? this.pick(marks) : this.whole(0, bytes.length - 1);
    const [a, b] = [at(), at()].sort((x, y) => x - y);
    switch (this.whole(0, 6)) {
      case 0:
        return bytes.slice(0, a);
      case 1: {
        const copy = bytes.slice();
        for (let n = this.whole(1, 4); n > 0; n--) {
          const i = Math.min(at(), bytes.length - 1);
          copy[i] = this.pick([0, 1, 0x7f, 0x80, 0xff, copy[i] ^ (1 << this.whole(0, 7))]);
        }
        return copy;
      }
      case 2:
        return joined(bytes.subarray(0, b), bytes.subarray(a)); // a piece twice
      case 3:
        return joined(bytes.subarray(0, a), bytes.subarray(b)); // a piece gone
      case 4: {
        const copy = bytes.slice();
        copy.subarray(a, Math.min(b, a + this.pick([2, 4, 8]))).reverse(); // the other byte order
        return copy;
      }
      case 5:
        return joined(bytes, new Uint8Array(this.whole(1, 40)));
      default: {
        const copy = bytes.slice();
        for (let i = a; i < Math.min(b, a + 16); i++) copy[i] = this.whole(0, 255);
        return copy;
      }
    }
  }
}

const HURTING = [
  -1,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 60,
  2 ** 63,
  2 ** 64 - 2048,
  -(2 ** 31),
  -(2 ** 63),
];

/** Text that stands in JSON as it is. */
export class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** A list in a list in a list …, `depth` times. */
export function nested(depth: number): string {
  return "[".repeat(depth) + "]".repeat(depth);
}

/** Names of an object in order; a name may occur twice. */
export class Entries {
  readonly list: readonly (readonly [string, unknown])[];
  constructor(list: readonly (readonly [string, unknown])[]) {
    this.list = list;
  }
}

/** JSON of a value that may hold Raw text and Entries. */
export function jsonText(value: unknown): string {
  if (value instanceof Raw) return value.text;
  if (value instanceof Entries) {
    return `{${value.list.map(([name, inner]) => `${JSON.stringify(name)}:${jsonText(inner)}`).join(",")}}`;
  }
  if (Array.isArray(value)) return `[${value.map(jsonText).join(",")}]`;
  if (typeof value === "object" && value !== null) return jsonText(new Entries(Object.entries(value)));
  return JSON.stringify(value) ?? "null";
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Bytes of a binary file, field after field; remembers where each one ends. */
export class Writer {
  readonly marks: number[] = [];
  readonly #little: boolean;
  #view = new DataView(new ArrayBuffer(1024));
  #length = 0;

  constructor(little = true) {
    this.#little = little;
  }

  get length(): number {
    return this.#length;
  }

  u8(n: number): this {
    return this.#put(1, (view, at) => view.setUint8(at, n));
  }
  u16(n: number): this {
    return this.#put(2, (view, at) => view.setUint16(at, n, this.#little));
  }
  /** Also signed: what does not fit is wrapped. */
  u32(n: number): this {
    return this.#put(4, (view, at) => view.setUint32(at, Number(BigInt.asUintN(32, big(n))), this.#little));
  }
  u64(n: number): this {
    return this.#put(8, (view, at) => view.setBigUint64(at, BigInt.asUintN(64, big(n)), this.#little));
  }
  f32(x: number): this {
    return this.#put(4, (view, at) => view.setFloat32(at, x, this.#little));
  }
  f64(x: number): this {
    return this.#put(8, (view, at) => view.setFloat64(at, x, this.#little));
  }
  raw(bytes: Uint8Array): this {
    return this.#put(bytes.length, (view, at) => new Uint8Array(view.buffer).set(bytes, at));
  }
  /** LEB128, as protobuf has it. */
  varint(n: number): this {
    let left = BigInt.asUintN(64, big(n));
    do {
      const low = Number(left & 0x7fn);
      left >>= 7n;
      this.u8(left > 0n ? low | 0x80 : low);
    } while (left > 0n);
    return this;
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.#view.buffer.slice(0, this.#length));
  }

  #put(bytes: number, write: (view: DataView<ArrayBuffer>, at: number) => void): this {
    if (this.#length + bytes > this.#view.byteLength) {
      const larger = new Uint8Array(2 * (this.#length + bytes));
      larger.set(new Uint8Array(this.#view.buffer, 0, this.#length));
      this.#view = new DataView(larger.buffer);
    }
    write(this.#view, this.#length);
    this.#length += bytes;
    this.marks.push(this.#length);
    return this;
  }
}

function big(n: number): bigint {
  return Number.isFinite(n) ? BigInt(Math.trunc(n)) : 0n;
}
