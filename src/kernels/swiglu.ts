import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { EXP_ERROR, type Kernel, needSize, TINY, UNIT } from "./kernel.ts";

/**
 * The gated unit of the feed-forward layer.
 *
 *   y = silu(g)·u,  silu(g) = g·σ(g),  σ(g) = 1/(1+e^(−g))     g, u and y of one shape
 *   dg = dy·u·σ(g)·(1 + g·(1−σ(g))),  du = dy·silu(g)
 *
 * Shazeer, 2020 (https://arxiv.org/abs/2002.05202), section 2.
 */
export const swiglu: Kernel<[gate: Tensor, up: Tensor]> = {
  outputs(gate, up) {
    needSize("swiglu: up", up, sizeOf(gate.shape));
    return [{ shape: gate.shape, format: "f32" }];
  },

  numbers(gate) {
    return [sizeOf(gate.shape)];
  },

  forward([gate, up], [y], [n]) {
    for (let i = 0; i < n; i++) y.data[i] = silu(gate.data[i]) * up.data[i];
  },

  differentiable: [0, 1],

  backward([gate, up], _outputs, dy, [dgate, dup], [n]) {
    for (let i = 0; i < n; i++) {
      const g = gate.data[i];
      const s = sigmoid(g);
      if (dgate) dgate.data[i] = dy.data[i] * up.data[i] * s * (1 + g * (1 - s));
      if (dup) dup.data[i] = dy.data[i] * silu(g);
    }
  },

  // σ has the error of e^x and two roundings, then two products. Where e^(−g) overflows, what is lost is below 128·TINY.
  bound([, up], [y], [n]) {
    const relative = EXP_ERROR + 5 * UNIT;
    const bounds = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      bounds[i] = Math.abs(y.data[i]) * relative + 128 * TINY * (1 + Math.abs(up.data[i]));
    }
    return [bounds];
  },

  // 1−σ has the absolute error of σ and one rounding, times g; then one addition and three products.
  boundBackward([gate, up], _outputs, dy, [dgate, dup], [n]) {
    const forGate = dgate && new Float64Array(n);
    const forUp = dup && new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const g = gate.data[i];
      const s = sigmoid(g);
      const product = Math.abs(dy.data[i] * up.data[i]);
      const inner = 1 + Math.abs(g) * (1 - s); // ≥ |1 + g(1−σ)|
      const error = inner * (EXP_ERROR + 8 * UNIT) + Math.abs(g) * (EXP_ERROR * s + 4 * UNIT);
      if (forGate) forGate[i] = product * s * error + 128 * TINY * (1 + product);
      const lost = 128 * TINY * (1 + Math.abs(dy.data[i]));
      if (forUp) forUp[i] = Math.abs(dy.data[i] * silu(g)) * (EXP_ERROR + 5 * UNIT) + lost;
    }
    return [forGate, forUp];
  },
};

function sigmoid(g: number): number {
  return 1 / (1 + Math.exp(-g));
}

function silu(g: number): number {
  return g / (1 + Math.exp(-g));
}
