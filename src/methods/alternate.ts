import { decodeWeight } from "../formats/index.ts";
import type { Matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { difference } from "./vector-codes.ts";

export interface AlternateOptions {
  /** One part, fitted to what the other leaves; the first is fitted to W itself. */
  readonly first: (rest: Matrix) => Promise<Weight>;
  readonly second: (rest: Matrix) => Promise<Weight>;
  readonly errorOf: (E: Matrix) => Promise<number>;
  /** Rounds, at most. */
  readonly rounds: number;
  /** The first round that does not lower the error is the last. Default: all are tried. */
  readonly untilRise?: boolean;
}

/** The two parts of a round, and the error that they leave. */
export interface Round {
  readonly first: Weight;
  readonly second: Weight;
  readonly error: number;
}

/**
 * W ≈ X + Y, the two parts fitted in turn:
 *
 *   repeat   X = first(W − Y),  Y = second(W − X)
 *
 * from Y = 0. Neither part finds the best one that there is, so the error may rise: the best round is given.
 */
export async function alternate(
  W: Matrix,
  { first, second, errorOf, rounds, untilRise = false }: AlternateOptions,
): Promise<Round> {
  let best: Round | undefined;
  let rest = W;
  for (let round = 0; round < rounds; round++) {
    const X = await first(rest);
    const left = difference(W, decodeWeight(X));
    const Y = await second(left);
    const other = decodeWeight(Y);
    const error = await errorOf(difference(left, other));
    if (!best || error < best.error) best = { first: X, second: Y, error };
    else if (untilRise) break;
    rest = difference(W, other);
  }
  return best!;
}
