import { expect, it } from "vitest";
import { bf16FromBits, bf16ToBits, f16FromBits, f16ToBits, roundBf16, roundF16 } from "./half.ts";

it("every fp16 number keeps its bits", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const x = f16FromBits(bits);
    if (!Number.isNaN(x)) expect(f16ToBits(x)).toBe(bits);
    else expect(f16FromBits(f16ToBits(x))).toBeNaN();
  }
});

it("every bf16 number keeps its bits; a NaN stays one with its sign", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const x = bf16FromBits(bits);
    if (Number.isNaN(x)) expect(bf16ToBits(x) & 0x7f80).toBe(0x7f80);
    else expect(bf16ToBits(x)).toBe(bits);
  }
});

it("halves go to the even neighbour", () => {
  expect(roundF16(1 + 2 ** -11)).toBe(1);
  expect(roundF16(1 + 3 * 2 ** -11)).toBe(1 + 2 ** -9);
  expect(roundBf16(1 + 2 ** -8)).toBe(1);
  expect(roundBf16(1 + 3 * 2 ** -8)).toBe(1 + 2 ** -6);
});

it("fp16 ends at 65,504, bf16 at float32's end", () => {
  expect(roundF16(65519)).toBe(65504);
  expect(roundF16(65520)).toBe(Infinity);
  expect(roundBf16(3.4e38)).toBe(Infinity);
  expect(roundBf16(3.38e38)).toBeLessThan(Infinity);
  expect(roundBf16(-Infinity)).toBe(-Infinity);
});
