import type { Job } from "../record/record.ts";
import type { Sampler } from "./sampling.ts";

/**
 * Guesses the next tokens of a text, cheaply; the model then reads all guesses
 * at once and keeps those that it would have drawn itself.
 */
export interface Drafter {
  /** Up to `most` tokens that may follow. The sampler stands behind the last token, and does so afterwards. */
  draft(sequence: readonly number[], most: number, sampler: Sampler, job: Job): Promise<readonly number[]>;
  free(): void;
}

/** Guesses at a time: the model reads one token more than these, and eight rows cost hardly more than one. */
export const MOST_GUESSES = 7;
