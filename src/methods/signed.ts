import { partOf } from "../formats/format.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import type { Matrix } from "../tensor/tensor.ts";
import type { Part, Weight } from "../tensor/weight.ts";
import type { LowRank } from "./low-rank.ts";

/** A bit for each weight, set where it is not negative: rows (rows, ⌈cols/8⌉), weight c at bit c mod 8 of byte ⌊c/8⌋. */
function signBits({ rows, cols, data }: Matrix): Part {
  const width = Math.ceil(cols / 8);
  const bits = new Uint8Array(rows * width);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) if (!(data[r * cols + c] < 0)) bits[r * width + (c >> 3)] |= 1 << (c & 7);
  }
  return partOf("u8", [rows, width], bits);
}

/** sign(W) ⊙ (a·b), the factors in fp16: 1 + 16·rank·(1/rows + 1/cols) bits per weight. sign(0) is +1. */
export function signedLowRank(W: Matrix, { a, b }: LowRank): Weight {
  const f16 = formatByName("f16");
  const factor = ({ rows, cols, data }: Matrix) => encodeWeight(f16, [rows, cols], data);
  const shape = [W.rows, W.cols];
  const of: Weight = { shape, expression: { kind: "lowRank", a: factor(a), b: factor(b) } };
  return { shape, expression: { kind: "signed", bits: signBits(W), of } };
}
