import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openModel } from "../files/index.ts";
import { writeModel } from "../files/write-model.ts";
import { generator, normals } from "../tensor/random.ts";
import type { Weight } from "../tensor/weight.ts";
import { ggmlTypeByName, ggmlTypes } from "./ggml.ts";
import { bytesPerMatrix, encodeWeight, formatByName, formats } from "./index.ts";

/** What a type's bytes stand for. */
function read(name: string, bytes: ArrayLike<number>): number[] {
  const reading = ggmlTypeByName(name)?.reading;
  if (reading?.kind !== "decoded") throw new Error(`${name} is not decoded`);
  // At an odd address, as tensors may stand in a file that was read in one piece.
  const data = new Uint8Array(bytes.length + 1).subarray(1);
  data.set(bytes);
  return [...reading.decode(data)];
}

const zeros = (n: number) => new Array<number>(n).fill(0);

describe("the table of ggml's types", () => {
  it("answers for every number from 0 to 42, with the sizes of ggml's blocks", () => {
    expect([...ggmlTypes.keys()].sort((a, b) => a - b)).toEqual(Array.from({ length: 43 }, (_, id) => id));
    for (const [id, type] of ggmlTypes) {
      expect(type.id).toBe(id);
      expect(ggmlTypeByName(type.name)).toBe(type);
      if (type.weights === 0) expect(type.reading.kind).toBe("refused");
    }
    expect(ggmlTypeByName("int4-g64")).toBeUndefined();
    expect(ggmlTypeByName("toString")).toBeUndefined();
  });

  it("has a format of the same blocks for every type that runs in place, and for no other", () => {
    for (const { name, weights, bytes, reading } of ggmlTypes.values()) {
      expect(formats.has(name), name).toBe(reading.kind === "format");
      if (reading.kind !== "format") continue;
      expect(bytesPerMatrix(formatByName(name), 3, 2 * weights)).toBe(6 * bytes);
    }
  });

  it("keeps every format in a folder of safetensors as it is", async () => {
    const folder = mkdtempSync(join(tmpdir(), "lowbit-"));
    const weights = [...ggmlTypes.values()]
      .filter(({ reading }) => reading.kind === "format")
      .map(({ name }): [string, Weight] => {
        return [`layer.${name}`, encodeWeight(formatByName(name), [2, 256], normals(generator(3), 512))];
      });
    await writeModel(join(folder, "model"), { config: { model_type: "llama" } }, weights);
    const model = await openModel(join(folder, "model"));
    for (const [name, weight] of weights) {
      expect(model.source.format(name)).toBe(name.slice("layer.".length));
      expect(await model.source.read(name)).toEqual(weight);
    }
    await model.close();
    rmSync(folder, { recursive: true });
  });

  it("says of each type that it refuses why, and what to do", () => {
    const refused = [...ggmlTypes.values()].filter((type) => type.reading.kind === "refused");
    expect(refused.map((type) => type.name).sort()).toEqual(
      [
        ...["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s"],
        ...["q4_2", "q4_3", "q4_0_4_4", "q4_0_4_8", "q4_0_8_8", "iq4_nl_4_4", "iq4_nl_4_8", "iq4_nl_8_8"],
      ].sort(),
    );
    for (const { reading } of refused) {
      if (reading.kind === "refused") expect(reading.why).toMatch(/^[^\n]+; (take|convert) [^\n]+$/);
    }
  });
});

describe("types that are decoded, from hand-made blocks", () => {
  it("numbers", () => {
    expect(read("i8", [0xff, 0x7f])).toEqual([-1, 127]);
    expect(read("i16", [0x00, 0x80, 0x01, 0x00])).toEqual([-32768, 1]);
    expect(read("i32", [0xfe, 0xff, 0xff, 0xff])).toEqual([-2]);
    expect(read("i64", [0xfd, ...new Array(7).fill(0xff)])).toEqual([-3]);
    // 2⁴⁰ + 1 has more digits than a float32: rounded once, to 2⁴⁰.
    expect(read("i64", [1, 0, 0, 0, 0, 1, 0, 0])).toEqual([2 ** 40]);
    expect(read("f64", new Uint8Array(Float64Array.of(-0.1, 1e300).buffer))).toEqual([
      Math.fround(-0.1),
      Infinity,
    ]);
  });

  it("q1_0", () => {
    // Scale 1.5 = 0x3e00; weights 0 and 127 positive: bit 0 of byte 2, bit 7 of byte 17.
    const w = read("q1_0", [0x00, 0x3e, 0x01, ...zeros(14), 0x80]);
    expect(w).toEqual(Array.from({ length: 128 }, (_, n) => (n === 0 || n === 127 ? 1.5 : -1.5)));
  });

  it("q2_0", () => {
    // Scale 0.5 = 0x3800; codes 0, 1, 2, 3 in byte 2, from the low bits on: 0b11100100; all others 1, bytes of 0x55.
    const w = read("q2_0", [0x00, 0x38, 0xe4, ...new Array(15).fill(0x55)]);
    expect(w).toEqual([-0.5, 0, 0.5, 1, ...zeros(60)]);
  });

  it("q8_1", () => {
    // Scale 0.5; the sum (bytes 2..3) is not read; codes −128 … at both ends.
    const w = read("q8_1", [0x00, 0x38, 0xff, 0xff, 0x80, ...zeros(30), 0x7f]);
    expect(w).toEqual([-64, ...zeros(30), 63.5]);
  });

  it("q8_k", () => {
    // Scale 0.1 as float32, 0x3dcccccd: 127 of it is rounded once to float32. The sums at the end are not read.
    const w = read("q8_k", [0xcd, 0xcc, 0xcc, 0x3d, 0x7f, ...zeros(254), 0xfe, ...new Array(32).fill(0xff)]);
    expect(w).toEqual([
      Math.fround(127 * Math.fround(0.1)),
      ...zeros(254),
      Math.fround(-2 * Math.fround(0.1)),
    ]);
  });

  it("iq4_xs", () => {
    // Scale 2 = 0x4000. Sub-scale 0: low four bits 3 (low half of byte 4), upper bits 2 (bits 0–1 of the word at 2):
    // 3 + 32 − 32 = 3. Sub-scale 7: low 15 (high half of byte 7), upper 0: 15 − 32 = −17. The others: 0 − 32.
    // Run 0: byte 8 has the codes 0 (weight 0: −127) and 15 (weight 16: 113). Run 7: its last byte, 135, has the
    // codes 8 (weight 239: 1) and 9 (weight 255: 13). All other codes are 0: −127.
    const block = [0x00, 0x40, 0x02, 0x00, 0x03, 0x00, 0x00, 0xf0, ...zeros(128)];
    block[8] = 0xf0;
    block[135] = 0x98;
    const own = (n: number) => 2 * (n < 32 ? 3 : n < 224 ? -32 : -17);
    const level = (n: number) => ({ 16: 113, 239: 1, 255: 13 })[n] ?? -127;
    expect(read("iq4_xs", block)).toEqual(Array.from({ length: 256 }, (_, n) => own(n) * level(n)));
  });

  it("mxfp4", () => {
    // Exponent 127 is 2⁰. Byte j has the code j in its low half and 15−j in its high half; the code 8, −0, is read as 0.
    const half = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
    const all = [...half, 0, ...half.slice(1).map((x) => -x)];
    const codes = Array.from({ length: 16 }, (_, j) => j | ((15 - j) << 4));
    expect(read("mxfp4", [127, ...codes])).toEqual([...all, ...all.toReversed()]);
    expect(read("mxfp4", [0, ...codes])[7]).toBe(6 * 2 ** -127);
  });

  it("nvfp4", () => {
    // Scales e4m3: 0x38 = 2⁰, 0x41 = 1.125·2¹, 0x01 = 2⁻⁹ (below normal), 0x7f, which ggml takes for 0. A group of 16
    // has 8 bytes: byte j has weight j in its low half (code 2: 1) and weight 8+j in its high half (code 15: −6).
    const w = read("nvfp4", [0x38, 0x41, 0x01, 0x7f, ...new Array(32).fill(0xf2)]);
    const group = (scale: number) => [...new Array(8).fill(scale), ...new Array(8).fill(-6 * scale)];
    expect(w.map((x) => x + 0)).toEqual([...group(1), ...group(2.25), ...group(2 ** -9), ...zeros(16)]);
  });
});
