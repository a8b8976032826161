import { z } from "zod";
import type { Cluster } from "../evaluation/statistics.ts";

/** What a recipe asks of its candidates. */
export const questionSchema = z.strictObject({
  ask: z.string(),
  /** Bits per weight of the linear layers, from and to. */
  bits: z.tuple([z.number(), z.number()]),
  /** Names of the candidates meant, `*` for any text, several with commas. */
  of: z.string(),
  /** And those that they are compared with. */
  with: z.string(),
  /** Whether the best of `of` loses at most this share of what the best of `with` loses. Default: less than it. */
  share: z.number().positive().default(1),
});

export type CompressionQuestion = z.output<typeof questionSchema>;

/** Loss above the float model's on one split, and how far the predictions moved. */
export interface SplitResult {
  /** Of each window, this model's loss minus the float model's. */
  readonly clusters: readonly Cluster[];
  readonly klMean: number;
  readonly sameTop1: number;
}

/** One candidate with one seed, as its file keeps it. */
export interface CompressionRun {
  readonly candidate: string;
  readonly seed: number;
  /** What decides it: its options, the model, the texts, the version. */
  readonly identity: string;
  /** Stored bits per weight of the linear layers, and by what they are for. */
  readonly bits: number;
  readonly split: Readonly<{ [use: string]: number }>;
  /** What the matrices are made of, with how many are. */
  readonly made: Readonly<{ [description: string]: number }>;
  readonly bytes: number;
  readonly seconds: number;
  readonly choose: SplitResult;
  readonly report: SplitResult;
}
