import { roundBf16 } from "../tensor/half.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { needSize, type Procedure } from "./kernel.ts";
import { type AdamNumbers, adamNumbers, bf16At, gradientFactor, noBound, setBf16At } from "./moments.ts";

/**
 * One step of AdamW on weights and moments that are bf16 numbers, in which
 * what a weight is too coarse to take up is kept in a second bf16 number:
 * w + rest is what is trained. R rounds to bf16.
 *
 *   g ← R(g·limit),  m ← R(R(β₁·m) + (1−β₁)·g)
 *   light:  v ← R(R(β₂·v) + (1−β₂)·g²)
 *   plus:   (v, restV) ← Grow(Mul((v, restV), (R(β₂), R(β₂ − R(β₂)))), R((1−β₂)·g²))
 *   Δ = R(−rate·( (m/(1−β₁^step)) / (√(v/(1−β₂^step)) + ε) + decay·w ))
 *   (w, rest) ← Grow((w, rest), Δ)
 *
 *   TwoSum(a, b) = (s, (small − (s − large)))   s = R(a + b), large the one of greater magnitude: s + e = a + b exactly
 *   Grow((a, r), b):  (s, e) = TwoSum(a, b),  (a, r) = TwoSum(s, R(r + e))
 *   Mul((a, r), (b, c)):  p = R(a·b),  (a, r) = TwoSum(p, R((a·b − p) + R(r·b + a·c)))
 *
 * w f32 (n), its values bf16 (splitBf16 makes them so); gradient (n); rest, first, second, secondRest i32 (⌈n/2⌉), two
 * bf16 each, the first in the lower half; secondRest empty: light. lost (3): to it is added how many Δ are not 0, how many of them bf16 alone would lose (R(w + Δ) = w), and how many are
 * lost here (w and rest stay as they were). norm as in adamw, also that nothing is written when it is not finite.
 *
 * Yu et al., 2024 (Collage, https://arxiv.org/abs/2405.03637), algorithms 1 and 2, and the official
 * https://github.com/amazon-science/collage. Two things differ: the operands of a sum are ordered by magnitude, so that
 * its error is exact also where a step is larger than the weight, and Δ is computed in float32 from the bf16 states.
 */
export const collage: Procedure<
  [
    w: Tensor,
    gradient: Tensor,
    rest: Tensor,
    first: Tensor,
    second: Tensor,
    secondRest: Tensor,
    lost: Tensor,
    norm: Tensor,
    ...numbers: AdamNumbers,
  ]
> = {
  check(w, gradient, rest, first, second, secondRest, lost, norm) {
    const size = sizeOf(w.shape);
    const pairs = Math.ceil(size / 2);
    needSize("collage: gradient", gradient, size);
    needSize("collage: rest", rest, pairs);
    needSize("collage: first", first, pairs);
    needSize("collage: second", second, pairs);
    if (sizeOf(secondRest.shape) > 0) needSize("collage: secondRest", secondRest, pairs);
    needSize("collage: lost", lost, 3);
    needSize("collage: norm", norm, 1);
  },

  numbers(w, _gradient, _rest, _first, _second, secondRest, _lost, _norm, ...numbers) {
    const [n, rate, beta1, beta2, ...others] = adamNumbers(w, ...numbers);
    const plus = sizeOf(secondRest.shape) > 0;
    const keep2 = plus ? roundBf16(beta2) : beta2;
    return [n, plus ? 1 : 0, rate, beta1, keep2, roundBf16(beta2 - keep2), 1 - beta2, ...others];
  },

  integers: [2, 3, 4, 5],
  writes: [0, 2, 3, 4, 5, 6],

  run([w, gradient, rest, first, second, secondRest, lost, norm], numbers) {
    if (!Number.isFinite(norm.data[0])) return;
    const [n, plus, ...constants] = numbers;
    const f = Math.fround;
    const scale = f(gradientFactor(norm.data[0], constants[constants.length - 1]));
    const [rate, keep1, keep2, rest2, take2, small, pull, bias1, bias2] = constants.map(f);
    const take1 = f(1 - constants[1]);
    const counts = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      const g = roundBf16(f(gradient.data[i] * scale));
      const m = roundBf16(f(roundBf16(f(keep1 * bf16At(first.ids, i))) + f(take1 * g)));
      setBf16At(first.ids, i, m);
      const share = f(take2 * f(g * g));
      let v = bf16At(second.ids, i);
      if (plus) {
        const restV = bf16At(secondRest.ids, i);
        const product = roundBf16(f(v * keep2));
        const error = f(f(v * keep2) - product);
        const cross = roundBf16(f(f(restV * keep2) + f(v * rest2)));
        const [kept, keptRest] = twoSum(product, roundBf16(f(error + cross)));
        const grown = grow(kept, keptRest, roundBf16(share));
        v = grown[0];
        setBf16At(secondRest.ids, i, grown[1]);
      } else {
        v = roundBf16(f(roundBf16(f(keep2 * v)) + share));
      }
      setBf16At(second.ids, i, v);

      const before = w.data[i];
      const restBefore = bf16At(rest.ids, i);
      const mean = f(m / bias1);
      const deviation = f(Math.sqrt(f(v / bias2)));
      const direction = f(f(mean / f(deviation + small)) + f(pull * before));
      const delta = roundBf16(f(0 - f(rate * direction)));
      const [after, restAfter] = grow(before, restBefore, delta);
      w.data[i] = after;
      setBf16At(rest.ids, i, restAfter);
      if (delta !== 0) {
        counts[0]++;
        if (roundBf16(f(before + delta)) === before) counts[1]++;
        if (after === before && restAfter === restBefore) counts[2]++;
      }
    }
    for (let k = 0; k < 3; k++) lost.data[k] += counts[k];
  },

  bound: noBound([0, 2, 3, 4, 5, 6]),
};

/** s and e of bf16 numbers with s = R(a + b) and s + e = a + b exactly. */
export function twoSum(a: number, b: number): [s: number, e: number] {
  const s = roundBf16(Math.fround(a + b));
  const [large, small] = Math.abs(a) < Math.abs(b) ? [b, a] : [a, b];
  return [s, roundBf16(Math.fround(small - roundBf16(Math.fround(s - large))))];
}

function grow(a: number, rest: number, b: number): [a: number, rest: number] {
  const [s, e] = twoSum(a, b);
  return twoSum(s, roundBf16(Math.fround(rest + e)));
}
