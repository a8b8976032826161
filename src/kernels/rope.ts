import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, matrixShape, needWhole, rowsOf, TINY, type View } from "./kernel.ts";

type Numbers = readonly number[];

/**
 * Rotary position embedding: pairs of each head turn by an angle that grows
 * with the position.
 *
 *   y₁ = x₁·cos − x₂·sin,  y₂ = x₁·sin + x₂·cos       x (tokens, heads·headDim) -> y, same shape
 *   dx₁ = dy₁·cos + dy₂·sin,  dx₂ = dy₂·cos − dy₁·sin
 *
 * Row t stands at position from + t mod time. table (positions, headDim) holds
 * headDim/2 cosines, then headDim/2 sines. Pairing 0 turns neighbours (2i, 2i+1),
 * pairing 1 halves (i, i + headDim/2).
 *
 * Su et al., 2021 (https://arxiv.org/abs/2104.09864), eq. 34.
 */
export const rope: Kernel<
  [x: Tensor, table: Tensor, headDim: number, time: number, from: number, pairing: number]
> = {
  outputs(x, table, headDim, time, from) {
    const [positions, width] = matrixShape("rope: table", table);
    needWhole("rope: headDim", headDim, 2);
    needWhole("rope: time", time, rowsOf(x) === 0 ? 0 : 1);
    needWhole("rope: from", from);
    if (headDim % 2 !== 0 || width !== headDim) {
      throw new ShapeError(`rope: table needs rows of headDim ${headDim}, an even number, got ${width}`);
    }
    if (lastOf(x) % headDim !== 0) {
      throw new ShapeError(`rope: x needs rows of whole heads of ${headDim}, got ${x.shape.join("×")}`);
    }
    if (from + Math.min(time, rowsOf(x)) > positions) {
      throw new ShapeError(
        `rope: positions ${from} … ${from + time - 1} need more than the table's ${positions}`,
      );
    }
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x, _table, headDim, time, from, pairing) {
    return [rowsOf(x), lastOf(x) / headDim, headDim, time, from, pairing];
  },

  forward([x, table], [y], numbers) {
    turn(x.data, y.data, table, numbers, 1);
  },

  differentiable: [0],

  backward([, table], _outputs, dy, [dx], numbers) {
    if (dx) turn(dy.data, dx.data, table, numbers, -1);
  },

  // A sum of two products.
  bound([x, table], _outputs, numbers) {
    return [turnBound(x.data, table, numbers)];
  },

  boundBackward([, table], _outputs, dy, [dx], numbers) {
    return [dx && turnBound(dy.data, table, numbers)];
  },
};

/** Calls f with the places of the two elements of every pair, and the places of their cosine and sine. */
function pairs(numbers: Numbers, f: (first: number, second: number, cos: number, sin: number) => void): void {
  const [tokens, heads, headDim, time, from, pairing] = numbers;
  const half = headDim / 2;
  for (let t = 0; t < tokens; t++) {
    const angles = (from + (t % time)) * headDim;
    for (let h = 0; h < heads; h++) {
      const head = (t * heads + h) * headDim;
      for (let i = 0; i < half; i++) {
        if (pairing === 0) f(head + 2 * i, head + 2 * i + 1, angles + i, angles + half + i);
        else f(head + i, head + half + i, angles + i, angles + half + i);
      }
    }
  }
}

/** y = x turned forwards (direction 1) or back (−1). */
function turn(x: Float32Array, y: Float32Array, table: View, numbers: Numbers, direction: 1 | -1): void {
  pairs(numbers, (first, second, c, s) => {
    const cos = table.data[c];
    const sin = direction * table.data[s];
    y[first] = x[first] * cos - x[second] * sin;
    y[second] = x[first] * sin + x[second] * cos;
  });
}

function turnBound(x: Float32Array, table: View, numbers: Numbers): Float64Array {
  const bounds = new Float64Array(x.length);
  pairs(numbers, (first, second, c, s) => {
    const cos = table.data[c];
    const sin = table.data[s];
    bounds[first] = gamma(2) * (Math.abs(x[first] * cos) + Math.abs(x[second] * sin)) + 2 * TINY;
    bounds[second] = gamma(2) * (Math.abs(x[first] * sin) + Math.abs(x[second] * cos)) + 2 * TINY;
  });
  return bounds;
}
