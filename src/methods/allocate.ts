import { InputError, UnsupportedError } from "../tensor/tensor.ts";

/** One way to store a part: what it takes, and what is lost by it. */
export interface Choice {
  readonly bytes: number;
  readonly error: number;
}

/** Bytes of the smallest choices. */
function leastBytes(parts: readonly (readonly Choice[])[]): number {
  return parts.reduce((sum, choices) => sum + Math.min(...choices.map(({ bytes }) => bytes)), 0);
}

/**
 * The number of the choice to take for every part, so that
 *
 *   Σ error is least,  Σ bytes ≤ budget,  one choice a part:
 *
 * an integer linear program, x_pc ∈ {0, 1} with Σ_c x_pc = 1, as in Guo et al., 2023
 * (https://arxiv.org/abs/2311.12023, section 3.2), solved exactly by HiGHS (https://highs.dev), which is loaded when
 * it is needed; bundles for browsers are made without it (package.json), as it asks for Node's modules. Choices that
 * another of the same part betters in both are left out first, bytes are counted in their common divisor. Throws an
 * InputError where no choice fits.
 */
export async function allocate(parts: readonly (readonly Choice[])[], budget: number): Promise<number[]> {
  const least = leastBytes(parts);
  if (least > budget) {
    throw new InputError(
      `allocate: nothing fits ${budget} bytes; the smallest choices together take ${least}`,
    );
  }
  const open = parts.map(worthwhile);
  const all = open.flatMap((choices, p) => choices.map((c) => ({ p, c, ...parts[p][c] })));
  const unit = all.reduce((divisor, { bytes }) => greatestCommonDivisor(divisor, bytes), 0) || 1;
  const largest = all.reduce((most, { error }) => Math.max(most, error), 0) || 1;
  const name = ({ p, c }: { p: number; c: number }) => `x${p}_${c}`;
  const sum = (numberOf: (one: Choice) => number) =>
    all.map((one) => `${numberOf(one)} ${name(one)}`).join("\n + ");
  const problem = [
    "Minimize",
    ` error: ${sum(({ error }) => (ERROR_UNIT * error) / largest)}`,
    "Subject To",
    ` size: ${sum(({ bytes }) => bytes / unit)} <= ${Math.floor(budget / unit)}`,
    ...open.map((choices, p) => ` one${p}: ${choices.map((c) => name({ p, c })).join(" + ")} = 1`),
    "Binary",
    ...all.map((one) => ` ${name(one)}`),
    "End",
  ].join("\n");
  // Its types are those of its CommonJS form, where the function is one level further down.
  const load = (await import("highs")).default as unknown as typeof import("highs")["default"];
  if (typeof load !== "function") throw new UnsupportedError("allocate: this page was bundled without HiGHS");
  const { Status, Columns } = (await load()).solve(problem, EXACT);
  if (Status !== "Optimal") throw new Error(`allocate: HiGHS says ${Status} of ${all.length} choices`);
  return open.map((choices, p) => {
    const chosen = choices.map((c) => Columns[name({ p, c })]?.Primal ?? 0);
    return choices[chosen.indexOf(Math.max(...chosen))];
  });
}

/** HiGHS takes costs that differ by 1e-7 for equal; the largest error counts this much. */
const ERROR_UNIT = 1e6;

/** No gap between the solution and the bound, and no slack in its constraints beyond rounding. */
const EXACT = {
  mip_rel_gap: 0,
  mip_abs_gap: 0,
  mip_feasibility_tolerance: 1e-9,
  primal_feasibility_tolerance: 1e-9,
  output_flag: false,
} as const;

/** Choices that no other of the part betters: the larger, the smaller their error. */
function worthwhile(choices: readonly Choice[]): number[] {
  const order = choices.map((_, c) => c);
  order.sort((a, b) => choices[a].bytes - choices[b].bytes || choices[a].error - choices[b].error);
  let least = Infinity;
  return order.filter((c) => {
    const better = choices[c].error < least;
    if (better) least = choices[c].error;
    return better;
  });
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
