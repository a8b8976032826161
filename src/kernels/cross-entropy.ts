import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { largest, needPrecision, productPrecision, sumError } from "./bf16-error.ts";
import { EXP_ERROR, gamma, type Kernel, matrixShape, needFormat, needSize, TINY, UNIT } from "./kernel.ts";

/**
 * Softmax cross-entropy of a linear layer's output, per token, in nats; the
 * logits are made in tiles and never stored.
 *
 *   l = W·x,  L = log Σ_v e^(l_v),  loss = L − l_target
 *     x (tokens, dim), w (vocabulary, dim) in any format, targets (tokens) i32 -> loss (tokens), L (tokens)
 *   dl_v = dloss·(e^(l_v − L) − [v = target]),  dx = Σ_v dl_v·w_v,  dw_v = Σ_tokens dl_v·x
 *
 * A target of −1 is ignored: loss 0, no gradient. Any other target outside
 * 0 … vocabulary−1 gives a loss of NaN, and no gradient.
 *
 * `precision` as in linear.ts: with 1 the operands of W·x, dl·W and dlᵀ·x may be rounded to BF16.
 */
export const crossEntropy: Kernel<[x: Tensor, w: Tensor, targets: Tensor, precision?: number]> = {
  outputs(x, w, targets, precision) {
    needPrecision("crossEntropy", precision);
    const [tokens, dim] = matrixShape("crossEntropy: x", x);
    const [vocabulary, width] = matrixShape("crossEntropy: w", w);
    if (width !== dim) {
      throw new ShapeError(`crossEntropy: w needs rows of ${dim}, got ${vocabulary}×${width}`);
    }
    needFormat("crossEntropy: targets", targets, "i32");
    needSize("crossEntropy: targets", targets, tokens);
    return [
      { shape: [tokens], format: "f32" },
      { shape: [tokens], format: "f32" },
    ];
  },

  numbers(x, w, _targets, precision) {
    return [x.shape[0], x.shape[1], w.shape[0], productPrecision(w, precision)];
  },

  forward([x, w, targets], [loss, logSums], [tokens, dim, vocabulary]) {
    const weights = w.decode();
    for (let t = 0; t < tokens; t++) {
      const l = logits(x.data.subarray(t * dim, (t + 1) * dim), weights, vocabulary);
      const L = logSum(l);
      const target = targets.ids[t];
      logSums.data[t] = L;
      loss.data[t] = target === -1 ? 0 : L - (l[target] ?? Number.NaN);
    }
  },

  packed: 1,
  ids: 2,
  differentiable: [0, 1],

  backward([x, w, targets], [, logSums], dloss, [dx, dw], [tokens, dim, vocabulary]) {
    const weights = w.decode();
    const sumsX = new Float64Array(tokens * dim);
    const sumsW = new Float64Array(dw ? vocabulary * dim : 0);
    for (let t = 0; t < tokens; t++) {
      const target = targets.ids[t];
      if (target < 0 || target >= vocabulary) continue;
      const row = x.data.subarray(t * dim, (t + 1) * dim);
      const l = logits(row, weights, vocabulary);
      for (let v = 0; v < vocabulary; v++) {
        const dl = dloss.data[t] * (Math.exp(l[v] - logSums.data[t]) - (v === target ? 1 : 0));
        for (let i = 0; i < dim; i++) {
          sumsX[t * dim + i] += dl * weights[v * dim + i];
          if (dw) sumsW[v * dim + i] += dl * row[i];
        }
      }
    }
    dx?.data.set(sumsX);
    dw?.data.set(sumsW);
  },

  // A logit is a sum of dim products with absolute error e_v. L moves by log Σ p_v·e^(e_v) at most; its exponentials
  // and their sum have relative errors, which the logarithm makes absolute; then L and the target's logit are rounded
  // and subtracted.
  bound([x, w, targets], [loss, logSums], [tokens, dim, vocabulary, precision]) {
    const weights = w.decode();
    const sizes = w.magnitudes();
    const most = largest(x.data, sizes);
    const forLoss = new Float64Array(tokens);
    const forSums = new Float64Array(tokens);
    for (let t = 0; t < tokens; t++) {
      const row = x.data.subarray(t * dim, (t + 1) * dim);
      const l = logits(row, weights, vocabulary);
      const e = logitErrors(row, sizes, most, vocabulary, precision);
      const L = logSums.data[t];
      const top = l.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const rescalings = Math.ceil(vocabulary / RESCALE_EVERY);
      let grown = 0;
      for (let v = 0; v < vocabulary; v++) {
        if (l[v] === Number.NEGATIVE_INFINITY) continue; // its weight is 0, exactly
        grown += Math.exp(l[v] - L) * Math.expm1(e[v] + UNIT * Math.abs(l[v] - top));
      }
      const moved = Math.log1p(grown) + gamma(vocabulary + 2) + EXP_ERROR + rescalings * (EXP_ERROR + UNIT);
      forSums[t] = moved + UNIT * (3 * Math.abs(L) + Math.abs(top) + 4);
      const target = targets.ids[t];
      if (target >= 0)
        forLoss[t] = forSums[t] + e[target] + UNIT * (Math.abs(l[target]) + Math.abs(loss.data[t]));
    }
    return [forLoss, forSums];
  },

  // p_v has the error of its logit, of l_v − L and of e^x; dl_v two more roundings; then sums over the vocabulary
  // (dx) and over the tokens (dw).
  boundBackward([x, w, targets], [, logSums], dloss, [dx, dw], [tokens, dim, vocabulary, precision]) {
    const weights = w.decode();
    const sizes = w.magnitudes();
    const most = largest(x.data, sizes);
    const forX = dx && new Float64Array(tokens * dim);
    const forW = dw && new Float64Array(vocabulary * dim);
    for (let t = 0; t < tokens; t++) {
      const target = targets.ids[t];
      if (target < 0 || target >= vocabulary) continue;
      const row = x.data.subarray(t * dim, (t + 1) * dim);
      const l = logits(row, weights, vocabulary);
      const e = logitErrors(row, sizes, most, vocabulary, precision);
      for (let v = 0; v < vocabulary; v++) {
        const difference = l[v] - logSums.data[t];
        const p = Math.exp(difference);
        const dl = Math.abs(dloss.data[t] * (p - (v === target ? 1 : 0)));
        const moved = Math.expm1(e[v] + UNIT * (Math.abs(difference) + e[v]));
        const relative = p === 0 ? 0 : moved * (1 + EXP_ERROR) + EXP_ERROR;
        const error = Math.abs(dloss.data[t]) * p * relative + dl * 2 * UNIT + TINY;
        const made = dl + error;
        const top = Math.max(most, made);
        const inSum = (size: number, roundings: number) =>
          size * error + sumError(precision, size * made, top, 1, roundings);
        for (let i = 0; i < dim; i++) {
          if (forX) forX[t * dim + i] += inSum(sizes[v * dim + i], vocabulary + SCALING);
          if (forW) forW[v * dim + i] += inSum(Math.abs(row[i]), tokens + 1);
        }
      }
    }
    return [forX, forW];
  },
};

/** Roundings beside the sum of a logit, as in linear.ts. */
const SCALING = 4;

/** Largest error of each logit of a row of x, whose weights have these magnitudes. */
function logitErrors(
  row: Float32Array,
  sizes: Float32Array,
  most: number,
  vocabulary: number,
  precision: number,
): Float64Array {
  const dim = row.length;
  return logits(row.map(Math.abs), sizes, vocabulary).map((sum) =>
    sumError(precision, sum, most, dim, dim + SCALING),
  );
}

/** Logits between two rescalings of a running maximum, at least. */
const RESCALE_EVERY = 64;

/** weights (vocabulary, dim) · x (dim), in 64 bits. */
function logits(x: Float32Array, weights: Float32Array, vocabulary: number): Float64Array {
  const l = new Float64Array(vocabulary);
  for (let v = 0; v < vocabulary; v++) {
    let sum = 0;
    for (let i = 0, at = v * x.length; i < x.length; i++, at++) sum += weights[at] * x[i];
    l[v] = sum;
  }
  return l;
}

function logSum(l: Float64Array): number {
  const largest = l.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let sum = 0;
  for (const value of l) sum += Math.exp(value - largest);
  return largest + Math.log(sum);
}
