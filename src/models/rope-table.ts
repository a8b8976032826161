import { type HostTensor, hostTensor } from "../tensor/tensor.ts";
import type { ModelConfig } from "./model.ts";

/**
 * Cosines and sines of rotary positions 0 … positions−1, computed in 64 bits
 * and rounded once, so that every backend turns by the same angles.
 *
 *   angle(p, i) = p·base^(−2i/headDim)      -> (positions, headDim): headDim/2 cosines, then headDim/2 sines
 *
 * Su et al., 2021 (https://arxiv.org/abs/2104.09864), eq. 15.
 */
export function ropeTable({ headDim, ropeBase }: ModelConfig, positions: number): HostTensor {
  const half = headDim / 2;
  const table = new Float32Array(positions * headDim);
  for (let i = 0; i < half; i++) {
    const frequency = ropeBase ** ((-2 * i) / headDim);
    for (let p = 0; p < positions; p++) {
      table[p * headDim + i] = Math.cos(p * frequency);
      table[p * headDim + half + i] = Math.sin(p * frequency);
    }
  }
  return hostTensor([positions, headDim], table);
}
