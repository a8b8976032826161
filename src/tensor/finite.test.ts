import { expect, test } from "vitest";
import { checkFinite } from "./finite.ts";
import { packedWeight } from "./weight.ts";

/** A matrix with these words among others that are finite. */
function weight(dtype: "f32" | "f16" | "bf16", words: ArrayBufferView<ArrayBuffer>, shift = 0) {
  const bytes = new Uint8Array(words.byteLength + shift).subarray(shift);
  bytes.set(new Uint8Array(words.buffer));
  const part = { dtype, shape: [1, words.byteLength], bytes };
  return packedWeight([1, 4], "any", {
    codes: { dtype: "u8", shape: [1], bytes: Uint8Array.of(255) },
    scales: part,
  });
}

test.each([
  ["f32", Float32Array.of(1, -1e38, 0, NaN)],
  ["f32", Float32Array.of(1, 2, 3, -Infinity)],
  ["f16", Uint16Array.of(0x3c00, 0x7bff, 0xfbff, 0x7c00)],
  ["f16", Uint16Array.of(0, 0, 0, 0xfe01)],
  ["bf16", Uint16Array.of(0x3f80, 0x7f7f, 0xff7f, 0x7f80)],
  ["bf16", Uint16Array.of(0, 0, 0, 0xffc1)],
] as const)("%s %j is refused at element 3, aligned or not", (dtype, words) => {
  for (const shift of [0, 1]) {
    expect(() => checkFinite("m", "w", weight(dtype, words, shift))).toThrow(
      "m: tensor w (scales) has NaN or infinity at element 3; the file is damaged",
    );
  }
});

test("largest finite numbers and codes of any value pass", () => {
  checkFinite("m", "w", weight("f32", Float32Array.of(3.4e38, -3.4e38)));
  checkFinite("m", "w", weight("f16", Uint16Array.of(0x7bff, 0xfbff)));
  checkFinite("m", "w", weight("bf16", Uint16Array.of(0x7f7f, 0xff7f)));
});
