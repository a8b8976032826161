import { bf16FromBits, bf16ToBits } from "../tensor/half.ts";
import { halfEven } from "../tensor/rounding.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type Procedure, TINY } from "./kernel.ts";

/** What the operations of Adam take after their tensors. */
export type AdamNumbers = readonly [
  rate: number,
  beta1: number,
  beta2: number,
  epsilon: number,
  decay: number,
  step: number,
  maxNorm: number,
];

/** The same as the C++ reads it, the size first: the step becomes the two corrections 1 − β^step. */
export function adamNumbers(w: Tensor, ...numbers: AdamNumbers): number[] {
  const [rate, beta1, beta2, epsilon, decay, step, maxNorm] = numbers;
  return [sizeOf(w.shape), rate, beta1, beta2, epsilon, decay, 1 - beta1 ** step, 1 - beta2 ** step, maxNorm];
}

/** What the gradient is multiplied by so that its norm is at most maxNorm; 1 when there is no limit. */
export function gradientFactor(squaredNorm: number, maxNorm: number): number {
  return maxNorm > 0 ? Math.min(1, maxNorm / (Math.sqrt(squaredNorm) + 1e-6)) : 1;
}

/** A weight with its two moments. */
export interface Moved {
  w: number;
  first: number;
  second: number;
}

/**
 * Adam's step of one weight (adamw.ts has the formulas) with every operation
 * rounded to float32, in the order of moments.h: where moments are rounded to
 * codes afterwards, all backends must have the same bits before.
 */
export function roundedAdam(
  [, rate, beta1, beta2, epsilon, decay, correction1, correction2, maxNorm]: readonly number[],
  squaredNorm: number,
): (moved: Moved, gradient: number) => void {
  const f = Math.fround;
  const scale = f(gradientFactor(squaredNorm, maxNorm));
  const [keep1, take1, keep2, take2] = [beta1, 1 - beta1, beta2, 1 - beta2].map(f);
  const [bias1, bias2, small, step, pull] = [correction1, correction2, epsilon, rate, decay].map(f);
  return (moved, gradient) => {
    const g = f(gradient * scale);
    moved.first = f(f(keep1 * moved.first) + f(take1 * g));
    moved.second = f(f(keep2 * moved.second) + f(take2 * f(g * g)));
    const mean = f(moved.first / bias1);
    const deviation = f(Math.sqrt(f(moved.second / bias2)));
    const direction = f(f(mean / f(deviation + small)) + f(pull * moved.w));
    moved.w = f(moved.w - f(step * direction));
  };
}

/**
 * The dynamic data type: levels of `decades` powers of ten, each with twice
 * the steps of the one below. Decade i (0 the lowest) has n = first·2^i levels,
 *
 *   (0.1 + 0.9·(k + ½)/n) · 10^(i+1−decades),  k = 0 … n−1
 *
 * and there are 0 and 1; signed, also the negatives of all but 1. Codes number
 * the levels in ascending order.
 *
 * Dettmers, 2016 (https://arxiv.org/abs/1511.04561), section 2.2, as `create_dynamic_map` of
 * https://github.com/bitsandbytes-foundation/bitsandbytes (bitsandbytes/functional.py) has it.
 */
export class DynamicMap {
  /** The number that each code stands for, in ascending order. */
  readonly levels: Float32Array;
  /** Code of 0. */
  readonly middle: number;
  readonly #signed: boolean;
  /** Of each decade: first and last magnitude, what x is multiplied by, what is added, and where the next one begins. */
  readonly #decades: readonly { low: number; high: number; slope: number; shift: number; end: number }[];
  readonly #zeroBelow: number;
  readonly #oneAbove: number;
  readonly #one: number;

  constructor(decades: number, first: number, signed: boolean) {
    const magnitudes = [0];
    const parts = [];
    for (let i = 0; i < decades; i++) {
      const n = first * 2 ** i;
      const unit = 10 ** (decades - 1 - i);
      parts.push({
        low: magnitudes.length,
        high: magnitudes.length + n - 1,
        slope: Math.fround((n * unit) / 0.9),
        shift: Math.fround(Math.fround(n * Math.fround(8 / 9)) + Math.fround(0.5 - first)),
        end: Math.fround((1 + 0.9 / n) / unit),
      });
      for (let k = 0; k < n; k++) magnitudes.push((0.1 + (0.9 * (k + 0.5)) / n) / unit);
    }
    this.#zeroBelow = Math.fround(magnitudes[1] / 2);
    this.#oneAbove = Math.fround((magnitudes[magnitudes.length - 1] + 1) / 2);
    this.#one = magnitudes.length;
    this.#decades = parts;
    this.#signed = signed;
    const negative = signed ? magnitudes.slice(1).map((x) => -x) : [];
    this.middle = negative.length;
    this.levels = Float32Array.from([...negative.reverse(), ...magnitudes, 1]);
  }

  /**
   * The code whose level is nearest to x, found by arithmetic in float32, as
   * the vectors of dynamic-map.h do it: between two levels it turns within
   * 2⁻¹⁶ of a step of the middle. x in −1 … 1, or 0 … 1 when unsigned.
   */
  nearest(x: number): number {
    const f = Math.fround;
    const size = Math.abs(x);
    let at = 0;
    while (at + 1 < this.#decades.length && this.#decades[at].end < size) at++;
    const { low, high, slope, shift } = this.#decades[at];
    let j = Math.max(low, Math.min(high, halfEven(f(f(size * slope) + shift))));
    if (!(this.#zeroBelow < size)) j = 0;
    if (this.#oneAbove < size) j = this.#one;
    return this.#signed && x < 0 ? this.middle - Math.min(j, this.middle) : this.middle + j;
  }
}

/** The scale of a group whose largest magnitude is `most`: 0 where that is next to nothing. */
export function groupScale(most: number): number {
  return most < TINY ? 0 : most;
}

/** What a group is multiplied by before its codes are looked for. */
export function inverseScale(most: number): number {
  return most < TINY ? 0 : Math.fround(1 / most);
}

/**
 * The bound of operations whose reference rounds wherever the kernel does: their
 * floats are the same, and so are the codes that depend on them.
 */
export function noBound(writes: readonly number[]): NonNullable<Procedure["bound"]> {
  return (before) => writes.map((i) => new Float64Array(before[i].data.length));
}

/** The bytes of an i32 tensor that holds packed codes. */
export function bytesOf(ids: Int32Array): Uint8Array {
  return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
}

/** bf16 number i of those that lie two in a word, the first in the lower half. */
export function bf16At(words: Int32Array, i: number): number {
  return bf16FromBits((words[i >> 1] >>> (16 * (i & 1))) & 0xffff);
}

/** Writes bf16 number i; x has to be one. */
export function setBf16At(words: Int32Array, i: number, x: number): void {
  const shift = 16 * (i & 1);
  words[i >> 1] = (words[i >> 1] & ~(0xffff << shift)) | (bf16ToBits(x) << shift);
}
