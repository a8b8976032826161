import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, needSize, TINY } from "./kernel.ts";

/**
 * The gated unit of the feed-forward layer with a squared ReLU, most of whose values are 0.
 *
 *   y = r²·u,  r = max(g, 0)                  g, u and y of one shape
 *   dg = dy·u·2r,  du = dy·r²
 *
 * So et al., 2021 (https://arxiv.org/abs/2109.08668), section 4.3; gated: Wang et al., 2024
 * (https://arxiv.org/abs/2411.04965), section 2.
 */
export const relu2glu: Kernel<[gate: Tensor, up: Tensor]> = {
  outputs(gate, up) {
    needSize("relu2glu: up", up, sizeOf(gate.shape));
    return [{ shape: gate.shape, format: "f32" }];
  },

  numbers(gate) {
    return [sizeOf(gate.shape)];
  },

  forward([gate, up], [y], [n]) {
    for (let i = 0; i < n; i++) y.data[i] = Math.max(gate.data[i], 0) ** 2 * up.data[i];
  },

  differentiable: [0, 1],

  backward([gate, up], _outputs, dy, [dgate, dup], [n]) {
    for (let i = 0; i < n; i++) {
      const r = Math.max(gate.data[i], 0);
      if (dgate) dgate.data[i] = 2 * r * up.data[i] * dy.data[i];
      if (dup) dup.data[i] = r ** 2 * dy.data[i];
    }
  },

  // Two products each; r² below 2⁻¹²⁶ may be lost.
  bound([, up], [y], [n]) {
    const bounds = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      bounds[i] = Math.abs(y.data[i]) * gamma(2) + TINY * (1 + Math.abs(up.data[i]));
    }
    return [bounds];
  },

  boundBackward([gate, up], _outputs, dy, [dgate, dup], [n]) {
    const forGate = dgate && new Float64Array(n);
    const forUp = dup && new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const r = Math.max(gate.data[i], 0);
      const size = Math.abs(dy.data[i]);
      if (forGate) forGate[i] = Math.abs(2 * r * up.data[i]) * size * gamma(2) + TINY * (1 + 2 * r + size);
      if (forUp) forUp[i] = r ** 2 * size * gamma(2) + TINY * (1 + size);
    }
    return [forGate, forUp];
  },
};
