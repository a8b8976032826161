import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, needSize, type Procedure, TINY } from "./kernel.ts";
import { type AdamNumbers, adamNumbers, gradientFactor } from "./moments.ts";

/**
 * One step of Adam with decoupled weight decay and a limit on the gradient's
 * norm over all tensors (`norm` holds its square, from squaredNorm).
 *
 *   g ← g·min(1, maxNorm/(√norm + 1e-6)) when maxNorm > 0
 *   m ← β₁·m + (1−β₁)·g,  v ← β₂·v + (1−β₂)·g²
 *   w ← w − rate·( (m/(1−β₁^step)) / (√(v/(1−β₂^step)) + ε) + decay·w )
 *
 * w, gradient, first m and second v of one shape; norm (1); step counts from 1.
 * With a norm that is infinite or NaN nothing is written.
 *
 * Loshchilov & Hutter, 2019 (https://arxiv.org/abs/1711.05101), algorithm 2, with decay multiplied by the rate,
 * and the gradient limit of Pascanu et al., 2013 (https://arxiv.org/abs/1211.5063), algorithm 1, as PyTorch has both.
 */
export const adamw: Procedure<
  [w: Tensor, gradient: Tensor, first: Tensor, second: Tensor, norm: Tensor, ...numbers: AdamNumbers]
> = {
  check(w, gradient, first, second, norm) {
    const size = sizeOf(w.shape);
    needSize("adamw: gradient", gradient, size);
    needSize("adamw: first", first, size);
    needSize("adamw: second", second, size);
    needSize("adamw: norm", norm, 1);
  },

  numbers(w, _gradient, _first, _second, _norm, ...numbers) {
    return adamNumbers(w, ...numbers);
  },

  writes: [0, 2, 3],

  run(
    [w, gradient, first, second, norm],
    [n, rate, beta1, beta2, epsilon, decay, correction1, correction2, maxNorm],
  ) {
    if (!Number.isFinite(norm.data[0])) return;
    const limit = gradientFactor(norm.data[0], maxNorm);
    for (let i = 0; i < n; i++) {
      const g = gradient.data[i] * limit;
      const m = beta1 * first.data[i] + (1 - beta1) * g;
      const v = beta2 * second.data[i] + (1 - beta2) * g * g;
      first.data[i] = m;
      second.data[i] = v;
      w.data[i] -= rate * (m / correction1 / (Math.sqrt(v / correction2) + epsilon) + decay * w.data[i]);
    }
  },

  // m and v are sums of two products; numbers and the limit are rounded to float32 too. The step adds a quotient with
  // a root, in which v's relative error counts half, and w's own decay; all roundings on the way are counted.
  bound([w, gradient, first, second, norm], _after, numbers) {
    const [n, rate, beta1, beta2, epsilon, decay, correction1, correction2, maxNorm] = numbers;
    const limit = gradientFactor(norm.data[0], maxNorm);
    const forW = new Float64Array(n);
    const forFirst = new Float64Array(n);
    const forSecond = new Float64Array(n);
    if (!Number.isFinite(norm.data[0])) return [forW, forFirst, forSecond];
    for (let i = 0; i < n; i++) {
      const g = gradient.data[i] * limit;
      const sizeOfM = Math.abs(beta1 * first.data[i]) + Math.abs((1 - beta1) * g);
      const v = beta2 * second.data[i] + (1 - beta2) * g * g;
      forFirst[i] = gamma(9) * sizeOfM + 2 * TINY;
      forSecond[i] = gamma(14) * v + 2 * TINY;
      const root = Math.sqrt(v / correction2) + epsilon;
      const step = rate * (sizeOfM / correction1 / root + Math.abs(decay * w.data[i]));
      // A square that is flushed to zero leaves the root off by √TINY.
      const lost =
        rate * (sizeOfM / correction1) * Math.min(1 / root, Math.sqrt(TINY / correction2) / root / epsilon);
      forW[i] = gamma(30) * step + gamma(1) * Math.abs(w.data[i]) + lost + TINY;
    }
    return [forW, forFirst, forSecond];
  },
};
