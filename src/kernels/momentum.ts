import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, needSize, type Procedure, TINY } from "./kernel.ts";
import { gradientFactor } from "./moments.ts";

/**
 * Momentum of a gradient whose norm is limited as in adamw:
 *
 *   g = gradient·limit,  M ← β·M + g,  update ← g + β·M (nesterov) or M
 *
 * buffer M, update and gradient of one shape; norm (1). With a norm that is
 * infinite or NaN nothing is written.
 *
 * Nesterov's form as in Sutskever et al., 2013, and https://github.com/KellerJordan/Muon.
 */
export const momentum: Procedure<
  [
    buffer: Tensor,
    update: Tensor,
    gradient: Tensor,
    norm: Tensor,
    beta: number,
    nesterov: number,
    maxNorm: number,
  ]
> = {
  check(buffer, update, gradient, norm) {
    const size = sizeOf(buffer.shape);
    needSize("momentum: update", update, size);
    needSize("momentum: gradient", gradient, size);
    needSize("momentum: norm", norm, 1);
  },

  numbers(buffer, _update, _gradient, _norm, beta, nesterov, maxNorm) {
    return [sizeOf(buffer.shape), beta, nesterov, maxNorm];
  },

  writes: [0, 1],

  run([buffer, update, gradient, norm], [n, beta, nesterov, maxNorm]) {
    if (!Number.isFinite(norm.data[0])) return;
    const limit = gradientFactor(norm.data[0], maxNorm);
    for (let i = 0; i < n; i++) {
      const g = gradient.data[i] * limit;
      const M = beta * buffer.data[i] + g;
      buffer.data[i] = M;
      update.data[i] = nesterov ? g + beta * M : M;
    }
  },

  // β and the limit are rounded, and each product and sum once.
  bound([buffer, , gradient, norm], _after, [n, beta, , maxNorm]) {
    const [forBuffer, forUpdate] = [new Float64Array(n), new Float64Array(n)];
    if (!Number.isFinite(norm.data[0])) return [forBuffer, forUpdate];
    const limit = gradientFactor(norm.data[0], maxNorm);
    for (let i = 0; i < n; i++) {
      const g = Math.abs(gradient.data[i] * limit);
      const M = Math.abs(beta * buffer.data[i]) + g;
      forBuffer[i] = gamma(4) * M + 2 * TINY;
      forUpdate[i] = gamma(8) * (g + beta * M) + 3 * TINY;
    }
    return [forBuffer, forUpdate];
  },
};
