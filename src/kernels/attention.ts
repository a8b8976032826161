import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { EXP_ERROR, gamma, type Kernel, matrixShape, needWhole, TINY, UNIT } from "./kernel.ts";

type Numbers = readonly number[];

/**
 * Causal attention with grouped heads. Query t of a sequence sees keys
 * 0 … from+t; head h reads key and value head ⌊h·kvHeads/heads⌋. k and v may be
 * a cache (cache-append.ts) that has more rows than are seen.
 *
 *   s_j = q·k_j/√headDim,  L = log Σ e^(s_j),  p_j = e^(s_j − L),  y = Σ p_j·v_j
 *   q (batch·time, heads·headDim), k and v (batch·keys, kvHeads·headDim)
 *     -> y (batch·time, heads·headDim), L (batch, heads, time)
 *
 *   D = dy·y,  ds_j = p_j·(dy·v_j − D)
 *   dq = Σ_j ds_j·k_j/√headDim,  dk_j = Σ_t ds_j·q/√headDim,  dv_j = Σ_t p_j·dy
 *
 * Vaswani et al., 2017 (https://arxiv.org/abs/1706.03762), eq. 1; grouped heads: Ainslie et al., 2023
 * (https://arxiv.org/abs/2305.13245); gradient from L, without stored scores: Dao, 2023
 * (https://arxiv.org/abs/2307.08691), algorithm 2.
 */
export const attention: Kernel<
  [q: Tensor, k: Tensor, v: Tensor, heads: number, kvHeads: number, batch: number, from: number]
> = {
  outputs(q, k, v, heads, kvHeads, batch, from) {
    const [rows, width] = matrixShape("attention: q", q);
    const [keyRows, keyWidth] = matrixShape("attention: k", k);
    if (v.shape.length !== 2 || v.shape[0] !== keyRows || v.shape[1] !== keyWidth) {
      throw new ShapeError(
        `attention: v needs the shape of k, ${k.shape.join("×")}, got ${v.shape.join("×")}`,
      );
    }
    needWhole("attention: heads", heads, 1);
    needWhole("attention: kvHeads", kvHeads, 1);
    needWhole("attention: batch", batch);
    needWhole("attention: from", from);
    if (heads % kvHeads !== 0 || width % heads !== 0) {
      throw new ShapeError(`attention: ${heads} heads over ${kvHeads} do not divide rows of ${width}`);
    }
    if (keyWidth !== (width / heads) * kvHeads) {
      throw new ShapeError(`attention: k needs rows of ${(width / heads) * kvHeads}, got ${keyWidth}`);
    }
    const time = perSequence(rows, batch);
    if (!Number.isInteger(time) || !Number.isInteger(perSequence(keyRows, batch))) {
      throw new ShapeError(
        `attention: ${rows} queries and ${keyRows} keys do not divide into ${batch} sequences`,
      );
    }
    if (perSequence(keyRows, batch) < from + time) {
      throw new ShapeError(
        `attention: ${time} queries from position ${from} need ${from + time} keys, got ${perSequence(keyRows, batch)}`,
      );
    }
    return [
      { shape: q.shape, format: "f32" },
      { shape: [batch, heads, time], format: "f32" },
    ];
  },

  numbers(q, k, _v, heads, kvHeads, batch, from) {
    const time = perSequence(q.shape[0], batch);
    return [batch, time, perSequence(k.shape[0], batch), from, heads, kvHeads, q.shape[1] / heads];
  },

  caches: [1, 2],

  forward([q, k, v], [y, logSums], numbers) {
    const [, , , , , , headDim] = numbers;
    const [keys, values] = [k.decode(), v.decode()];
    eachQuery(numbers, (query) => {
      const p = scores(q.data, keys, query, numbers);
      const L = logSum(p);
      logSums.data[query.index] = L;
      const sums = new Float64Array(headDim);
      for (let j = 0; j < p.length; j++) {
        const weight = Math.exp(p[j] - L);
        for (let i = 0; i < headDim; i++) sums[i] += weight * values[query.key(j) + i];
      }
      y.data.set(sums, query.at);
    });
  },

  differentiable: [0, 1, 2],

  backward([q, k, v], [y, logSums], dy, [dq, dk, dv], numbers) {
    const [, , , , , , headDim] = numbers;
    const factor = 1 / Math.sqrt(headDim);
    const sumsQ = new Float64Array(q.data.length);
    const [keys, values] = [k.decode(), v.decode()];
    const sumsK = new Float64Array(keys.length);
    const sumsV = new Float64Array(values.length);
    eachQuery(numbers, (query) => {
      const { at } = query;
      const s = scores(q.data, keys, query, numbers);
      const L = logSums.data[query.index];
      const D = dot(dy.data, at, y.data, at, headDim);
      for (let j = 0; j < s.length; j++) {
        const key = query.key(j);
        const p = Math.exp(s[j] - L);
        const ds = p * (dot(dy.data, at, values, key, headDim) - D) * factor;
        for (let i = 0; i < headDim; i++) {
          sumsQ[at + i] += ds * keys[key + i];
          sumsK[key + i] += ds * q.data[at + i];
          sumsV[key + i] += p * dy.data[at + i];
        }
      }
    });
    dq?.data.set(sumsQ);
    dk?.data.set(sumsK);
    dv?.data.set(sumsV);
  },

  // A score is a sum of headDim products, scaled: its absolute error e_j, with the rounding of s_j − max and of e^x
  // and of the rescalings of a running maximum, is the relative error ε_j of its weight. To first order a softmax
  // average moves by Σ p_j·ε_j·|v_j − y|; its sums are of as many terms as there are keys. A weight below 2⁻¹²⁶ is lost.
  bound([q, k, v], [y, logSums], numbers) {
    const [, , , , , , headDim] = numbers;
    const [keys, values] = [k.decode(), v.decode()];
    const bounds = new Float64Array(y.data.length);
    const forSums = new Float64Array(logSums.data.length);
    eachQuery(numbers, (query) => {
      const s = scores(q.data, keys, query, numbers);
      const L = logSum(s);
      const errors = weightErrors(q.data, keys, query, numbers, s);
      const summing = gamma(s.length + s.length / RESCALE_EVERY + 3);
      let moved = summing;
      for (let j = 0; j < s.length; j++) {
        const p = Math.exp(s[j] - L);
        moved += p * errors[j];
        for (let i = 0; i < headDim; i++) {
          const value = values[query.key(j) + i];
          bounds[query.at + i] +=
            p * (errors[j] * Math.abs(value - y.data[query.at + i]) + summing * Math.abs(value)) +
            4 * TINY * Math.abs(value);
        }
      }
      for (let i = 0; i < headDim; i++) {
        bounds[query.at + i] += Math.abs(y.data[query.at + i]) * summing;
      }
      forSums[query.index] = moved + UNIT * (3 * Math.abs(L) + Math.abs(largestOf(s)) + 4);
    });
    return [bounds, forSums];
  },

  // p_j as above with L given; dy·v_j and D are sums of headDim products, each with that error; D may be computed
  // from y as stored, which is rounded. The rest are sums over keys (dq) and over the queries that share a key (dk, dv).
  boundBackward([q, k, v], [y, logSums], dy, [dq, dk, dv], numbers) {
    const [, time, , , heads, kvHeads, headDim] = numbers;
    const [keys, values] = [k.decode(), v.decode()];
    const factor = 1 / Math.sqrt(headDim);
    const forQ = dq && new Float64Array(q.data.length);
    const forK = dk && new Float64Array(keys.length);
    const forV = dv && new Float64Array(values.length);
    const overQueries = gamma(time * (heads / kvHeads) + 3);
    eachQuery(numbers, (query) => {
      const { at } = query;
      const s = scores(q.data, keys, query, numbers);
      const L = logSums.data[query.index];
      const D = dot(dy.data, at, y.data, at, headDim);
      const absoluteD = absoluteDot(dy.data, at, y.data, at, headDim);
      const errors = weightErrors(q.data, keys, query, numbers, s, L);
      const overKeys = gamma(s.length + 3);
      for (let j = 0; j < s.length; j++) {
        const key = query.key(j);
        const p = Math.exp(s[j] - L);
        const difference = dot(dy.data, at, values, key, headDim) - D;
        const absolute = absoluteDot(dy.data, at, values, key, headDim) + absoluteD;
        const ds = p * factor * Math.abs(difference);
        const error =
          p * factor * (Math.abs(difference) * errors[j] + absolute * gamma(headDim + 3)) +
          4 * TINY * (1 + factor * absolute);
        for (let i = 0; i < headDim; i++) {
          if (forQ) forQ[at + i] += Math.abs(keys[key + i]) * (error + ds * overKeys) + TINY;
          if (forK) forK[key + i] += Math.abs(q.data[at + i]) * (error + ds * overQueries) + TINY;
          if (forV)
            forV[key + i] += Math.abs(dy.data[at + i]) * (p * (errors[j] + overQueries) + 4 * TINY) + TINY;
        }
      }
    });
    return [forQ, forK, forV];
  },
};

/** Rows of one sequence; 0 when there are none. */
function perSequence(rows: number, batch: number): number {
  return rows === 0 ? 0 : rows / batch;
}

/** One head of one row of q. */
interface Query {
  /** First element of q, y and dy. */
  readonly at: number;
  /** Its place in L. */
  readonly index: number;
  /** Number of keys it sees. */
  readonly seen: number;
  /** First element of key (and value) j. */
  key(j: number): number;
}

function eachQuery(
  [batch, time, keys, from, heads, kvHeads, headDim]: Numbers,
  f: (query: Query) => void,
): void {
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor((h * kvHeads) / heads);
      for (let t = 0; t < time; t++) {
        f({
          at: ((b * time + t) * heads + h) * headDim,
          index: (b * heads + h) * time + t,
          seen: from + t + 1,
          key: (j) => ((b * keys + j) * kvHeads + kvHead) * headDim,
        });
      }
    }
  }
}

function scores(q: Float32Array, keys: Float32Array, query: Query, numbers: Numbers): Float64Array {
  const headDim = numbers[6];
  const factor = 1 / Math.sqrt(headDim);
  const s = new Float64Array(query.seen);
  for (let j = 0; j < s.length; j++) s[j] = dot(q, query.at, keys, query.key(j), headDim) * factor;
  return s;
}

/** log Σ e^(s_j); NaN when a score is NaN or infinite, −infinity when all are that. */
function logSum(s: Float64Array): number {
  const largest = largestOf(s);
  const base = largest === Number.NEGATIVE_INFINITY ? 0 : largest;
  let sum = 0;
  for (const value of s) sum += Math.exp(value - base);
  return base + Math.log(sum);
}

/**
 * Relative error of each e^(s_j − reference), the reference being the running
 * maximum of the forward pass or L of the backward pass. A running maximum is
 * raised between tiles of keys, which rescales by another e^x.
 */
function weightErrors(
  q: Float32Array,
  keys: Float32Array,
  query: Query,
  numbers: Numbers,
  s: Float64Array,
  L?: number,
): Float64Array {
  const headDim = numbers[6];
  const relative = gamma(headDim + 2) / Math.sqrt(headDim);
  const reference = L ?? largestOf(s);
  const rescalings = L === undefined ? Math.floor((s.length - 1) / RESCALE_EVERY) : 0;
  return s.map((value, j) => {
    if (value === Number.NEGATIVE_INFINITY) return 0; // its weight is 0, exactly
    const score = relative * absoluteDot(q, query.at, keys, query.key(j), headDim);
    return score + UNIT * Math.abs(value - reference) + EXP_ERROR + rescalings * (EXP_ERROR + UNIT);
  });
}

/** Keys between two rescalings of a running maximum, at least. */
const RESCALE_EVERY = 64;

function largestOf(s: Float64Array): number {
  return s.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
}

function dot(a: Float32Array, from: number, b: Float32Array, at: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += a[from + i] * b[at + i];
  return sum;
}

function absoluteDot(a: Float32Array, from: number, b: Float32Array, at: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.abs(a[from + i] * b[at + i]);
  return sum;
}
