import type { TensorSource } from "../../src/files/file.ts";
import { memorySource } from "../../src/files/index.ts";
import { safetensorsSource } from "../../src/files/safetensors-source.ts";
import { decodeWeight, formats } from "../../src/formats/index.ts";
import { generator } from "../../src/tensor/random.ts";
import { naming } from "../../src/tensor/tensor.ts";
import { type Damage, Entries, jsonText, Writer } from "./damage.ts";
import { fileOf, type Target } from "./target.ts";

const DTYPES = { U8: 1, I8: 1, I16: 2, U16: 2, F16: 2, BF16: 2, I32: 4, F32: 4 };
/** Known, and not read by lowbit. */
const OTHERS = { F64: 8, I64: 8, F8_E4M3: 1, BOOL: 1, F4: 0.5 };

/** An array for a safetensors file. */
export interface Stored {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** A whole file of these arrays. */
export function safetensorsBytes(d: Damage, tensors: readonly Stored[]): Uint8Array {
  let end = 0;
  const entries: [string, unknown][] = d
    .list(tensors)
    .map(({ name, dtype, shape, bytes }): [string, unknown] => {
      const from = end;
      end += bytes.length;
      const entry = new Entries(
        d.list([
          ["dtype", d.json(dtype)],
          ["shape", d.json(shape.map((n) => d.json(n)))],
          ["data_offsets", d.json([d.json(from), d.json(end)])],
        ]),
      );
      return [d.text(name), d.json(entry)];
    });
  if (d.chance(0.5)) entries.unshift(["__metadata__", d.json({ format: d.json("pt") })]);
  const json = new TextEncoder().encode(jsonText(new Entries(d.list(entries))) + " ".repeat(d.whole(0, 7)));
  const out = new Writer().u64(d.number(json.length)).raw(json);
  for (const { bytes } of d.list(tensors)) out.raw(bytes);
  return d.bytes(out.bytes(), out.marks);
}

/** Drawn once: a number for each byte of each file would take most of the time. */
const NOISE = (() => {
  const random = generator(1);
  return Uint8Array.from({ length: 65_521 }, () => 256 * random());
})();

/** Numbers as files have them, and now and then NaN or infinity. */
export function randomBytes(d: Damage, length: number): Uint8Array {
  const from = d.whole(0, NOISE.length - 1);
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = NOISE[(from + i) % NOISE.length];
  if (d.fires()) bytes.fill(0xff, d.whole(0, length));
  return bytes;
}

export const safetensors: Target = {
  name: "safetensors",
  begins: /^fuzz\.safetensors: /,
  make(d) {
    const tensors = Array.from({ length: d.whole(0, 5) }, (_, i): Stored => {
      const [dtype, bytes] = d.pick(Object.entries(d.fires() ? OTHERS : DTYPES));
      const shape = Array.from({ length: d.whole(0, 3) }, () => d.whole(d.chance(0.1) ? 0 : 1, 4));
      const size = shape.reduce((a, b) => a * b, 1);
      return { name: `t${i}.weight`, dtype, shape, bytes: randomBytes(d, Math.ceil(size * bytes)) };
    });
    return safetensorsBytes(d, tensors);
  },
  async read(made) {
    const source = await safetensorsSource([{ file: memorySource(fileOf(made), "fuzz.safetensors") }]);
    await readEvery("fuzz.safetensors", source);
  },
};

/** All that is known of every tensor, and its values. What lowbit does not read is refused, which is no end. */
export async function readEvery(file: string, source: TensorSource): Promise<void> {
  for (const name of source.names) {
    source.shape(name);
    source.bytes(name);
    const known = formats.has(source.format(name)) || source.format(name).includes("(");
    const weight = await source.read(name);
    if (known) naming(`${file}: tensor ${name}`, () => decodeWeight(weight));
  }
}
