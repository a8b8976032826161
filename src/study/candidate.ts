import type { Interval } from "../evaluation/statistics.ts";

/** One model of a comparison, with everything that was measured of it. */
export interface Candidate {
  /** As tables call it: `gptq int4-g64`. */
  readonly name: string;
  readonly family: "float" | "rtn" | "gptq" | "ternary" | "binary";
  readonly format: string;
  /** The model that the others are compared with. */
  readonly reference: boolean;
  /** Bytes of the weights as stored. */
  readonly bytes: number;
  readonly bitsPerWeight: { readonly linear: number; readonly total: number };
  /** Nats per token. */
  readonly loss: { readonly mean: number; readonly standardError?: number };
  /** Loss minus the reference's on the same windows. */
  readonly difference?: Interval;
  readonly divergence?: { readonly klMean: number; readonly kl99: number; readonly sameTop1: number };
  readonly tokensPerSecond: number;
  /** Seconds to compress it; absent for models that were trained so. */
  readonly seconds?: number;
  readonly layers: readonly { readonly name: string; readonly relativeError: number }[];
}
