/**
 * Tokens that may be drawn, by ascending id. A weight is a probability before
 * it is divided by the sum of all: exp(logWeight), 1 for the best token.
 */
export interface Candidates {
  readonly ids: Int32Array;
  readonly logWeights: Float64Array;
  readonly weights: Float64Array;
}

/**
 * The best token; of equals the one with the lowest id. Throws when there is
 * none: NaN anywhere, infinity on top, or nothing above −infinity.
 */
export function greedy(logits: Float32Array): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    if (!(logits[id] <= logits[best])) best = id;
    if (Number.isNaN(logits[id])) break;
  }
  if (!Number.isFinite(logits[best])) {
    throw new Error(`sampling: the logit of token ${best} is ${logits[best]}; are the weights sound?`);
  }
  return best;
}

/**
 * The k best tokens, the lower id where they are equal.
 * Fan et al., 2018 (https://arxiv.org/abs/1805.04833), section 5.4.
 */
export function topK(logits: Float32Array, k: number): Int32Array {
  // A heap of the best so far, the least of them on top: of equals the one with the highest id.
  const ids = Int32Array.from({ length: Math.min(k, logits.length) }, (_, id) => id);
  const worse = (a: number, b: number) => logits[a] < logits[b] || (logits[a] === logits[b] && a > b);
  const sink = (id: number, from: number) => {
    let at = from;
    for (let child = 2 * at + 1; child < ids.length; child = 2 * at + 1) {
      if (child + 1 < ids.length && worse(ids[child + 1], ids[child])) child++;
      if (!worse(ids[child], id)) break;
      ids[at] = ids[child];
      at = child;
    }
    ids[at] = id;
  };
  for (let at = (ids.length >> 1) - 1; at >= 0; at--) sink(ids[at], at);
  let least = logits[ids[0]];
  for (let id = ids.length; id < logits.length; id++) {
    if (logits[id] <= least) continue;
    sink(id, 0);
    least = logits[ids[0]];
  }
  return ids.sort();
}

/** softmax(logits/temperature) of some tokens, or of all, up to a factor. */
export function weigh(logits: Float32Array, temperature: number, ids?: Int32Array): Candidates {
  const best = logits[greedy(logits)];
  const count = ids?.length ?? logits.length;
  const logWeights = new Float64Array(count);
  const weights = new Float64Array(count);
  const all = ids ?? new Int32Array(count);
  for (let n = 0; n < count; n++) {
    if (!ids) all[n] = n;
    logWeights[n] = (logits[all[n]] - best) / temperature;
    weights[n] = Math.exp(logWeights[n]);
  }
  return { ids: all, logWeights, weights };
}

/**
 * Keeps the fewest tokens with a probability of at least `mass` together whose
 * surprise −log p is nearest to what is expected of it, the entropy.
 * Meister et al., 2022 (https://arxiv.org/abs/2202.00666), section 4.
 */
export function typical(candidates: Candidates, mass: number): Candidates {
  if (mass >= 1) return candidates;
  const { logWeights, weights } = candidates;
  const total = sum(weights);
  // −log p and its mean differ from these by the same log Σ weights.
  let mean = 0;
  for (let n = 0; n < weights.length; n++) if (weights[n] > 0) mean += (weights[n] / total) * logWeights[n];
  const distances = new Float64Array(logWeights.length);
  for (let n = 0; n < distances.length; n++) distances[n] = Math.abs(logWeights[n] - mean);
  return keepFewest(candidates, distances, mass * total);
}

/**
 * Keeps the fewest best tokens with a probability of at least `mass` together.
 * Holtzman et al., 2019 (https://arxiv.org/abs/1904.09751), section 3.1.
 */
export function topP(candidates: Candidates, mass: number): Candidates {
  if (mass >= 1) return candidates;
  const total = sum(candidates.weights);
  // Tokens below this weigh together less than what is left out: none of them is needed.
  const least = ((1 - mass) * total) / candidates.weights.length;
  const likely = keep(candidates, negative(candidates.weights), -least);
  return keepFewest(likely, negative(likely.weights), mass * total);
}

/**
 * Keeps tokens at least `share` times as probable as the best.
 * Nguyen et al., 2024 (https://arxiv.org/abs/2407.01082), section 3.1.
 */
export function minP(candidates: Candidates, share: number): Candidates {
  if (share <= 0) return candidates;
  let best = 0;
  for (let n = 0; n < candidates.weights.length; n++) best = Math.max(best, candidates.weights[n]);
  return keep(candidates, negative(candidates.weights), -share * best);
}

/**
 * Draws a token by a race: each arrives after a time −ln(1 − u)/weight with a random
 * number u of its own, and the first wins, with the probability that it has
 * (Maddison et al., 2014, https://arxiv.org/abs/1411.0030, section 2, in logarithms).
 *
 * `uniform`, one number in [0, 1) for this draw, and the token's id decide u. So
 * two distributions p and q that are drawn from with the same number give the
 * same token with a probability of at least Σ min(p, q)/Σ max(p, q): a draft's
 * guess comes true nearly as often as any method lets it (Daliri et al., 2024,
 * https://arxiv.org/abs/2408.07978), and a bit of rounding hardly ever changes a text.
 */
export function race({ ids, weights }: Candidates, uniform: number): number {
  const high = Math.floor(uniform * 2 ** 32);
  const low = Math.floor((uniform * 2 ** 32 - high) * 2 ** 21);
  let first = 0;
  let best = Number.POSITIVE_INFINITY;
  for (let n = 0; n < ids.length; n++) {
    if (weights[n] === 0) continue;
    const a = scramble(high + Math.imul(ids[n], 0x9e3779b9));
    const b = scramble(a + low);
    const u = ((a >>> 5) * 67108864 + (b >>> 6)) / 9007199254740992;
    if (u >= best * weights[n]) continue; // −ln(1 − u) ≥ u: it comes later
    const arrival = -Math.log(1 - u) / weights[n];
    if (arrival < best) {
      best = arrival;
      first = ids[n];
    }
  }
  return first;
}

/** A 32-bit number whose every bit depends on every bit of another (MurmurHash3's finalizer, Appleby, 2011). */
function scramble(bits: number): number {
  let z = bits | 0;
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  return z ^ (z >>> 16);
}

/** Keeps the fewest with the smallest keys whose weights reach `mass`; of equal keys those with lower ids. */
function keepFewest(candidates: Candidates, keys: Float64Array, mass: number): Candidates {
  const last = lastOfFewest(keys, candidates.weights, mass);
  return keep(candidates, keys, keys[last], last);
}

/** Keeps those with a key below `most`, and with that key the ones up to index `last`. */
function keep(
  { ids, logWeights, weights }: Candidates,
  keys: Float64Array,
  most: number,
  last = ids.length,
): Candidates {
  const stay = new Int32Array(ids.length);
  let count = 0;
  for (let n = 0; n < ids.length; n++) {
    if (keys[n] < most || (keys[n] === most && n <= last)) stay[count++] = n;
  }
  const kept = {
    ids: new Int32Array(count),
    logWeights: new Float64Array(count),
    weights: new Float64Array(count),
  };
  for (let n = 0; n < count; n++) {
    kept.ids[n] = ids[stay[n]];
    kept.logWeights[n] = logWeights[stay[n]];
    kept.weights[n] = weights[stay[n]];
  }
  return kept;
}

/**
 * In ascending order of keys, where the sum of weights reaches `mass`: that
 * index. Quickselect (Hoare, 1961) that counts weights, O(n) on average.
 */
function lastOfFewest(keys: Float64Array, weights: Float64Array, mass: number): number {
  const order = new Int32Array(keys.length);
  for (let n = 0; n < order.length; n++) order[n] = n;
  let from = 0;
  let to = order.length;
  let needed = mass;
  for (;;) {
    const pivot = order[(from + to) >> 1];
    order[(from + to) >> 1] = order[to - 1];
    let split = from;
    let sumBefore = 0;
    for (let n = from; n < to - 1; n++) {
      const index = order[n];
      if (keys[index] > keys[pivot] || (keys[index] === keys[pivot] && index > pivot)) continue;
      order[n] = order[split];
      order[split++] = index;
      sumBefore += weights[index];
    }
    if (sumBefore >= needed) {
      to = split;
      continue;
    }
    needed -= sumBefore + weights[pivot];
    from = split;
    to--;
    if (needed <= 0 || from === to) return pivot; // the second: rounding left a crumb
  }
}

function negative(values: Float64Array): Float64Array {
  const result = new Float64Array(values.length);
  for (let n = 0; n < values.length; n++) result[n] = -values[n];
  return result;
}

function sum(values: Float64Array): number {
  let total = 0;
  for (let n = 0; n < values.length; n++) total += values[n];
  return total;
}
