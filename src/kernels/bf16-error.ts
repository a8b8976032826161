import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { gamma, TINY } from "./kernel.ts";

/**
 * Largest relative error of rounding a number to BF16, which has 8 significant bits, one of them implied: half the
 * distance from 1 to the next number, 2⁻⁷.
 */
const BF16_UNIT = 2 ** -8;

/** Of each product of two rounded numbers. */
const PRODUCT = (1 + BF16_UNIT) ** 2 - 1;

/** Throws a ShapeError unless the optional argument `precision` of a product is 0 or 1. */
export function needPrecision(where: string, precision = 0): void {
  if (precision !== 0 && precision !== 1) {
    throw new ShapeError(`${where}: precision needs to be 0 (float32) or 1 (may be BF16), got ${precision}`);
  }
}

/** The precision in which a product with w is asked for, a number of the kernel: 1 for plain floats alone. */
export function productPrecision(w: Tensor, precision = 0): number {
  return w.format === "f32" ? precision : 0;
}

/** The largest finite absolute value, what `sumError` needs; 0 where there is none. */
export function largest(...arrays: readonly Float32Array[]): number {
  let most = 0;
  for (const array of arrays) {
    for (const value of array) if (Math.abs(value) > most && Number.isFinite(value)) most = Math.abs(value);
  }
  return most;
}

/**
 * How far a computed Σ aᵢ·bᵢ of `terms` products may be from the exact one: `products` is Σ|aᵢ·bᵢ|, no |aᵢ| or |bᵢ| is
 * above `most`, and `roundings` are those of float32 on the way of one product into the result.
 *
 * Precision 0: γ·Σ|a·b|, and a flushed denormal for each term.
 * Precision 1 may round both operands first: a′ = a·(1+δ) + η with |δ| ≤ u = 2⁻⁸ and, for a denormal that counts as 0,
 * |η| < 2⁻¹²⁶; one of the two is 0. So |a′·b′ − a·b| ≤ |a·b|·((1+u)² − 1) + 2⁻¹²⁶·(1+u)·(|a| + |b|) + 2⁻²⁵². Products of
 * BF16 numbers are exact in float32; the two of a pair are added to the sum one after another, or at once, and results
 * flushed: the float32 error of the sum of |a′·b′|, and two denormals for each term.
 * (Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 2, VCVTNE2PS2BF16 and VDPBF16PS.)
 */
export function sumError(
  precision: number,
  products: number,
  most: number,
  terms: number,
  roundings: number,
): number {
  const rounding = gamma(roundings);
  if (precision === 0) return products * rounding + terms * TINY;
  const moved = products * PRODUCT + terms * TINY * (1 + BF16_UNIT) * 2 * most;
  return moved + (products + moved) * rounding + 3 * terms * TINY;
}
