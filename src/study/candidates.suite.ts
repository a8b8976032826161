import type { Interval } from "../evaluation/statistics.ts";
import type { Candidate } from "./candidate.ts";

/** A float model of 1600 bytes, made up for tests. */
export const reference: Candidate = {
  name: "float",
  family: "float",
  format: "f16",
  reference: true,
  bytes: 1600,
  bitsPerWeight: { linear: 16, total: 16 },
  loss: { mean: 3.5, standardError: 0.03 },
  tokensPerSecond: 1000,
  layers: [],
};

/** A compressed model of so many bytes that loses so much, made up for tests. */
export function compressed(name: string, bytes: number, difference?: Interval): Candidate {
  return {
    ...reference,
    name,
    family: "gptq",
    format: "int4",
    reference: false,
    bytes,
    bitsPerWeight: { linear: bytes / 100, total: bytes / 90 },
    loss: { mean: 3.5 + (difference?.mean ?? 0), standardError: 0.03 },
    difference,
    divergence: { klMean: 0.01, kl99: 0.1, sameTop1: 0.9 },
    seconds: 1.5,
    layers: [
      { name: "model.layers.0.self_attn.q_proj.weight", relativeError: 0.01 },
      { name: "model.layers.0.mlp.down_proj.weight", relativeError: 0.02 },
    ],
  };
}
