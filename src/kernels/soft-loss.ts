import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { EXP_ERROR, gamma, type Kernel, matrixShape, needWhole, TINY, UNIT } from "./kernel.ts";
import { topK } from "./top-k.ts";

/** What a student's distribution is compared by, by the number that `softLoss` takes. */
export const softRules = ["forward", "reverse", "topk"] as const;

/**
 * How far a student's distribution q is from a teacher's p, per token, in nats.
 *
 *   p = softmax(teacher), q = softmax(logits); T are words, which the rule chooses
 *   loss = Σ_{v∉T} (p·ln(p/q) − p + q) + Σ_{v∈T} (q·ln(q/p) − q + p)
 *     logits and teacher (tokens, vocabulary) -> loss (tokens), log Σ e^l of both (tokens, 2)
 *   h_v = q_v·ln(q_v/p_v) in T, q_v − p_v elsewhere;  dl_v = dloss·(h_v − q_v·Σ_u h_u); no gradient for the teacher
 *
 *   0 forward   T is empty:                          KL(p‖q)
 *   1 reverse   T is the vocabulary:                 KL(q‖p)
 *   2 topk      T are the teacher's k likeliest words, of equal ones the earlier; k from 1 to the vocabulary's size
 *
 * Every term is at least 0 and is 0, with slope 0, where p_v = q_v; the −p+q of all words add up to 0, so that the
 * first two rules are the plain divergences. The third is TopKLD as read here: Ding et al., 2025
 * (https://arxiv.org/abs/2501.06218), balance the explicit knowledge of the k likeliest tokens (mode seeking) with the
 * implicit knowledge of the rest (mode covering); their exact formula was not at hand. A teacher's logit of −∞ gives NaN.
 */
export const softLoss: Kernel<[logits: Tensor, teacher: Tensor, rule: number, k: number]> = {
  outputs(logits, teacher, rule, k) {
    const [tokens, vocabulary] = matrixShape("softLoss: logits", logits);
    const [rows, cols] = matrixShape("softLoss: teacher", teacher);
    if (rows !== tokens || cols !== vocabulary) {
      throw new ShapeError(`softLoss: teacher needs ${tokens}×${vocabulary}, got ${rows}×${cols}`);
    }
    needWhole("softLoss: rule", rule);
    if (rule >= softRules.length) throw new ShapeError(`softLoss: there is no rule ${rule}`);
    if (rule === 2) {
      needWhole("softLoss: k", k, 1);
      if (k > vocabulary) throw new ShapeError(`softLoss: k ${k} is more than the ${vocabulary} words`);
    }
    return [
      { shape: [tokens], format: "f32" },
      { shape: [tokens, 2], format: "f32" },
    ];
  },

  numbers(logits, _teacher, rule, k) {
    const [tokens, vocabulary] = logits.shape;
    return [tokens, vocabulary, [0, vocabulary, k][rule]];
  },

  forward([logits, teacher], [loss, sums], [tokens, vocabulary, k]) {
    for (let t = 0; t < tokens; t++) {
      const [own, other] = [logits, teacher].map((view) => rowOf(view.data, t, vocabulary));
      const [ownSum, otherSum] = [own, other].map(logSum);
      sums.data.set([ownSum, otherSum], 2 * t);
      const chosen = topK(other, k);
      let total = 0;
      for (let v = 0; v < vocabulary; v++) {
        const [a, b] = [own[v] - ownSum, other[v] - otherSum];
        const [q, p] = [Math.exp(a), Math.exp(b)];
        total += chosen[v] ? q * (a - b) - q + p : p * (b - a) - p + q;
      }
      loss.data[t] = total;
    }
  },

  differentiable: [0],

  backward([logits, teacher], [, sums], dloss, [dlogits], [tokens, vocabulary, k]) {
    if (!dlogits) return;
    for (let t = 0; t < tokens; t++) {
      const { q, h } = slopes(logits.data, teacher.data, sums.data, t, vocabulary, k);
      const total = h.reduce((a, b) => a + b, 0);
      for (let v = 0; v < vocabulary; v++) {
        dlogits.data[t * vocabulary + v] = dloss.data[t] * (h[v] - q[v] * total);
      }
    }
  },

  // Each log-sum moves by its exponentials' errors, weighted, and by those of their sum, which the logarithm makes
  // absolute; then it is rounded. p and q have the relative errors of e^x and of its argument, ln(p/q) the absolute
  // ones of both arguments. The terms are added up in any order.
  bound([logits, teacher], [, sums], [tokens, vocabulary, k]) {
    const forLoss = new Float64Array(tokens);
    const forSums = new Float64Array(2 * tokens);
    for (let t = 0; t < tokens; t++) {
      const rows = [logits, teacher].map((view) => rowOf(view.data, t, vocabulary));
      const [ownSum, otherSum] = rows.map(logSum);
      const [ownError, otherError] = rows.map((row, i) => sumError(row, sums.data[2 * t + i]));
      forSums.set([ownError, otherError], 2 * t);
      const chosen = topK(rows[1], k);
      const adding = gamma(vocabulary + 2);
      for (let v = 0; v < vocabulary; v++) {
        const [a, b] = [rows[0][v] - ownSum, rows[1][v] - otherSum];
        const [ea, eb] = [ownError + UNIT * Math.abs(a), otherError + UNIT * Math.abs(b)];
        const [q, p] = [Math.exp(a), Math.exp(b)];
        const d = Math.abs(a - b);
        const [weight, error] = chosen[v] ? [q, ea] : [p, eb];
        forLoss[t] +=
          weight * (d * (error + EXP_ERROR + 2 * UNIT) + ea + eb + UNIT * d) +
          p * (eb + EXP_ERROR + 2 * UNIT) +
          q * (ea + EXP_ERROR + 2 * UNIT) +
          adding * (weight * d + p + q) +
          4 * TINY * (1 + d);
      }
    }
    return [forLoss, forSums];
  },

  // As above, with the log-sums given; then the sum of h, and three roundings.
  boundBackward([logits, teacher], [, sums], dloss, [dlogits], [tokens, vocabulary, k]) {
    if (!dlogits) return [null];
    const bounds = new Float64Array(tokens * vocabulary);
    for (let t = 0; t < tokens; t++) {
      const { q, h, errors, qErrors } = slopes(logits.data, teacher.data, sums.data, t, vocabulary, k);
      let [total, magnitude, totalError] = [0, 0, 0];
      for (let v = 0; v < vocabulary; v++) {
        total += h[v];
        magnitude += Math.abs(h[v]);
        totalError += errors[v];
      }
      totalError += gamma(vocabulary + 2) * magnitude;
      for (let v = 0; v < vocabulary; v++) {
        const pull = Math.abs(q[v] * total);
        const error = errors[v] + qErrors[v] * Math.abs(total) + q[v] * totalError;
        bounds[t * vocabulary + v] =
          Math.abs(dloss.data[t]) * (error + 3 * UNIT * (Math.abs(h[v]) + pull) + 4 * TINY) + TINY;
      }
    }
    return [bounds];
  },
};

/** q and h of a token, and the errors that float32 may make in them. */
function slopes(
  logits: Float32Array,
  teacher: Float32Array,
  sums: Float32Array,
  t: number,
  vocabulary: number,
  k: number,
): Record<"q" | "h" | "errors" | "qErrors", Float64Array> {
  const own = rowOf(logits, t, vocabulary);
  const other = rowOf(teacher, t, vocabulary);
  const chosen = topK(other, k);
  const [q, h, errors, qErrors] = [0, 1, 2, 3].map(() => new Float64Array(vocabulary));
  for (let v = 0; v < vocabulary; v++) {
    const [a, b] = [own[v] - sums[2 * t], other[v] - sums[2 * t + 1]];
    const p = Math.exp(b);
    q[v] = Math.exp(a);
    const pError = p === 0 ? TINY : p * (UNIT * Math.abs(b) + EXP_ERROR) + TINY;
    qErrors[v] = q[v] === 0 ? TINY : q[v] * (UNIT * Math.abs(a) + EXP_ERROR) + TINY;
    h[v] = chosen[v] ? q[v] * (a - b) : q[v] - p;
    errors[v] = chosen[v]
      ? qErrors[v] * Math.abs(a - b) + q[v] * UNIT * (Math.abs(a) + Math.abs(b) + 3 * Math.abs(a - b))
      : qErrors[v] + pError + UNIT * Math.abs(h[v]);
  }
  return { q, h, errors, qErrors };
}

function rowOf(data: Float32Array, t: number, vocabulary: number): Float32Array {
  return data.subarray(t * vocabulary, (t + 1) * vocabulary);
}

function logSum(l: Float32Array): number {
  const largest = l.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let sum = 0;
  for (const value of l) sum += Math.exp(value - largest);
  return largest + Math.log(sum);
}

/** How far a log-sum L of logits may be off. */
function sumError(l: Float32Array, L: number): number {
  const largest = l.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let moved = gamma(l.length + 2) + EXP_ERROR;
  for (const value of l) {
    if (value !== Number.NEGATIVE_INFINITY) moved += Math.exp(value - L) * UNIT * Math.abs(value - largest);
  }
  return moved + UNIT * (3 * Math.abs(L) + Math.abs(largest) + 4);
}
