import { powerLawOf, slope } from "../evaluation/power-law.ts";
import { percentiles } from "../evaluation/resample.ts";
import { differenceText } from "../evaluation/words.ts";
import { type Ablation, type Cell, type Fit, gapsOf } from "./analysis.ts";
import type { Estimated, Loss, Replicates } from "./replicates.ts";

export type Answer = "holds" | "does not hold" | "cannot be told here";

/** A statement of the paper, and what our models say of it. */
export interface Claim {
  readonly claim: string;
  /** Where it is in the paper. */
  readonly source: string;
  readonly answer: Answer;
  /** The rule and what it met, in words. */
  readonly reason: string;
  /** Nats per token, unless the reason says otherwise; 95 % intervals. */
  readonly evidence: readonly (Estimated & { readonly at: string })[];
}

/** What the questions are asked of. */
export interface Evidence {
  readonly cells: readonly Cell[];
  readonly replicates: Replicates;
  readonly fits: readonly Fit[];
  readonly ablation?: Ablation;
}

/** Two losses that differ by less are called equal, nats per token: about 1 % of perplexity. */
export const MARGIN = 0.01;
/** Exponents that differ by less are called equal. */
const SAME_EXPONENT = 0.05;
/** Share of embedding and head in Spectra's 390M model, from which on its claim of equal bits is made. */
const SHARE_OF_390M = 0.263;
const PAPER = "Kaushal et al., 2024";

/** A quantity at one place (a size, a pair): its 95 % interval, and a wider one for looking at all places together. */
interface Place extends Estimated {
  readonly at: string;
  readonly wide: { readonly low: number; readonly high: number };
}

/**
 * A statistic at some places. That a claim is true at all m places is
 * concluded from m intervals of 95 %: all must agree, which is no more likely by chance
 * than for one (Berger, 1982, the intersection–union test). That it fails at some place
 * may be met by chance at any of m; there the intervals have 1 − 0.05/m (Bonferroni).
 */
function places(
  named: readonly { readonly at: string; readonly statistic: (loss: Loss) => number }[],
  replicates: Replicates,
): Place[] {
  return named.map(({ at, statistic }) => {
    const { measured, resampled } = replicates.apply(statistic);
    const wide = percentiles(resampled, 1 - 0.05 / named.length);
    return { at, value: measured, ...percentiles(resampled), wide };
  });
}

const seen = (all: readonly Place[]) => all.map(({ wide: _, ...place }) => place);
const untold = (reason: string): Pick<Claim, "answer" | "reason" | "evidence"> => ({
  answer: "cannot be told here",
  reason,
  evidence: [],
});

/**
 * Whether a quantity is below a limit at all places.
 *
 *   holds           every 95 % interval lies below the limit
 *   does not hold   some (1 − 0.05/m) interval lies above it
 *   cannot be told  else
 */
function below(all: readonly Place[], limit: number, what: string) {
  if (all.length === 0) return untold("no such models were measured");
  const above = all.filter(({ wide }) => wide.low > limit);
  const unsure = all.filter(({ high }) => !(high < limit));
  const bound = limit === 0 ? "below 0" : `below ${limit}`;
  const answer: Answer =
    above.length > 0 ? "does not hold" : unsure.length === 0 ? "holds" : "cannot be told here";
  const reason =
    answer === "holds"
      ? `${what} is ${bound}${everywhere(all)}: ${worst(all)}`
      : answer === "does not hold"
        ? `${what} is not ${bound} at ${names(above)}`
        : `the interval of ${what} holds ${limit} at ${names(unsure)}`;
  return { answer, reason, evidence: seen(all) };
}

/**
 * Whether a quantity is 0 up to a margin at all places.
 *
 *   holds           every 95 % interval lies within ±margin
 *   does not hold   some (1 − 0.05/m) interval lies outside of it
 *   cannot be told  else
 *
 * The interval for the first is that of the two one-sided tests (Schuirmann, 1987) at 2.5 % each.
 */
function equal(all: readonly Place[], margin: number, what: string) {
  if (all.length === 0) return untold("no such models were measured");
  const outside = all.filter(({ wide }) => wide.low > margin || wide.high < -margin);
  const unsure = all.filter(({ low, high }) => !(low > -margin && high < margin));
  const answer: Answer =
    outside.length > 0 ? "does not hold" : unsure.length === 0 ? "holds" : "cannot be told here";
  const reason =
    answer === "holds"
      ? `${what} is within ±${margin}${everywhere(all)}: ${farthest(all)}`
      : answer === "does not hold"
        ? `${what} is outside of ±${margin} at ${names(outside)}`
        : `the interval of ${what} reaches over ±${margin} at ${names(unsure)}`;
  return { answer, reason, evidence: seen(all) };
}

const everywhere = (all: readonly Place[]) =>
  all.length > 1 ? ` at all ${all.length} places, least clearly` : "";
const names = (all: readonly Place[]) => all.map(({ at }) => at).join(", ");

/** The place that is nearest to the limit. */
function worst(all: readonly Place[]): string {
  return shown(all.reduce((a, b) => (b.high > a.high ? b : a)));
}

/** The place whose interval reaches farthest from 0. */
function farthest(all: readonly Place[]): string {
  const reach = ({ low, high }: Place) => Math.max(-low, high);
  return shown(all.reduce((a, b) => (reach(b) > reach(a) ? b : a)));
}

function shown({ at, value, low, high }: Place): string {
  return `${differenceText(value, low, high)} (${at})`;
}

/** Checks what Spectra claims, one by one; claims whose models are not there are answered too. */
export function claimsOf(evidence: Evidence): Claim[] {
  const { cells, replicates } = evidence;
  /** Loss of a minus that of b at each size where both are. */
  const differences = (a: string, b: string, fits: (cell: Cell) => boolean = () => true) =>
    places(
      cells
        .filter((cell) => cell.family === a && replicates.has(b, cell.size) && fits(cell))
        .map(({ size }) => ({
          at: size,
          statistic: (loss: Loss) => loss(a, size) - loss(b, size),
        })),
      replicates,
    );
  const better = (a: string, b: string) => below(differences(a, b), 0, `loss of ${a} − ${b}`);

  return [
    {
      claim: `At equal N, FloatLM is as good as QuantLM-8 or better (up to ${MARGIN} nats)`,
      source: `${PAPER}, tables 6, 7 and 9`,
      ...below(differences("float", "Q8"), MARGIN, "loss of float − Q8"),
    },
    {
      claim: `At equal N, QuantLM-8 and QuantLM-6 are equal (within ${MARGIN} nats)`,
      source: `${PAPER}, tables 6, 7 and 9`,
      ...equal(differences("Q6", "Q8"), MARGIN, "loss of Q6 − Q8"),
    },
    {
      claim: "At equal N, QuantLM-6 is better than QuantLM-4",
      source: `${PAPER}, tables 6, 7 and 9`,
      ...better("Q6", "Q4"),
    },
    {
      claim: "At equal N, QuantLM-4 is better than QuantLM-3",
      source: `${PAPER}, tables 6, 7 and 9`,
      ...better("Q4", "Q3"),
    },
    {
      claim: "At equal N, QuantLM-4 is better than TriLM (up to 2.4B)",
      source: `${PAPER}, tables 6, 7 and 9`,
      ...better("Q4", "trilm"),
    },
    {
      claim: "At equal N, TriLM predicts better than QuantLM-3",
      source: `${PAPER}, table 9: perplexity on LAMBADA at every size`,
      ...better("trilm", "Q3"),
    },
    {
      claim: "TriLM 3.9B equals QuantLM-4 3.9B",
      source: `${PAPER}, section 5`,
      ...untold("no model of that size was trained; the fits are not extrapolated"),
    },
    equalBits(
      evidence,
      "At equal bits, TriLM is better than FloatLM and all QuantLMs; at all our sizes",
      () => true,
    ),
    equalBits(
      evidence,
      "At equal bits, TriLM is better than FloatLM and all QuantLMs, where embedding and head are at most 26.3 % of N, as from 390M on in Spectra",
      ({ N, linear }) => (N - linear) / N <= SHARE_OF_390M,
    ),
    {
      claim: "At equal N, BiLM is worse than TriLM",
      source: `${PAPER}, appendix B, figure 15: by 0.19 to 0.12 nats`,
      ...below(differences("trilm", "bilm"), 0, "loss of trilm − bilm"),
    },
    {
      claim: "The difference of BiLM and TriLM falls with N",
      source: `${PAPER}, appendix B, figure 15`,
      ...falls(evidence, "bilm", "trilm", "nats"),
    },
    {
      claim: "The gap from FloatLM to TriLM falls with N, in nats",
      source: `${PAPER}, equation 1`,
      ...falls(evidence, "trilm", "float", "nats"),
    },
    {
      claim: "The gap from FloatLM to TriLM falls with N, in percent of the loss",
      source: `${PAPER}, figure 10`,
      ...falls(evidence, "trilm", "float", "percent"),
    },
    {
      claim: `The losses of FloatLM and TriLM fall with one exponent (within ${SAME_EXPONENT})`,
      source: `${PAPER}, equation 1: 0.26 for both`,
      ...exponents(evidence),
    },
    {
      claim: "TriLM's loss tends to a higher limit than FloatLM's",
      source: `${PAPER}, equation 1: 1.76 and 1.67; the text says that the difference becomes insignificant`,
      ...limits(evidence),
    },
    {
      claim: "The gap from FloatLM to TriLM is 0.31 nats at 99M, 0.23 at 560M, 0.21 at 1.1B, 0.17 at 3.9B",
      source: `${PAPER}, equation 1 evaluated`,
      ...untold(
        `our sizes end at N = ${millions(Math.max(0, ...cells.map(({ N }) => N)))}, far below; the fits are not extrapolated`,
      ),
    },
    schedule(
      evidence,
      "Lowering the peak rate and removing weight decay together",
      "drop+removal",
      "neither",
    ),
    schedule(evidence, "Lowering the peak rate", "drop", "neither"),
    schedule(evidence, "Removing weight decay", "removal", "neither"),
    schedule(evidence, "Removing weight decay where the peak rate is lowered", "drop+removal", "drop"),
    schedule(evidence, "Lowering the peak rate where weight decay is removed", "drop+removal", "removal"),
  ];
}

/**
 * At the bits of each TriLM, the loss of another family between the two of its
 * sizes on either side, linear in the logarithm of the bits; TriLMs outside of the other's range are left out.
 */
function equalBits({ cells, replicates }: Evidence, claim: string, fits: (cell: Cell) => boolean): Claim {
  const others = [...new Set(cells.map(({ family }) => family))].filter(
    (family) => family !== "trilm" && family !== "bilm",
  );
  const pairs = cells
    .filter((cell) => cell.family === "trilm" && fits(cell))
    .flatMap((tri) =>
      others.flatMap((family) => {
        const sorted = cells.filter((cell) => cell.family === family).sort((a, b) => a.bits - b.bits);
        const above = sorted.findIndex(({ bits }) => bits >= tri.bits);
        if (above < 0 || (above === 0 && sorted[0].bits > tri.bits)) return [];
        const [a, b] = [sorted[Math.max(0, above - 1)], sorted[above]];
        const share = a === b ? 0 : Math.log(tri.bits / a.bits) / Math.log(b.bits / a.bits);
        const statistic = (loss: Loss) =>
          loss("trilm", tri.size) - (1 - share) * loss(family, a.size) - share * loss(family, b.size);
        return [{ at: `${tri.size} against ${family}`, statistic }];
      }),
    );
  return {
    claim,
    source: `${PAPER}, figure 1 and section 4.3`,
    ...below(places(pairs, replicates), 0, "loss of trilm − the other at its bits"),
  };
}

/** Whether the slope of a difference against ln N is negative, by its 95 % interval. */
function falls(
  { cells, replicates }: Evidence,
  of: string,
  against: string,
  unit: "nats" | "percent",
): Pick<Claim, "answer" | "reason" | "evidence"> {
  const gaps = gapsOf(cells, of, against, replicates);
  if (gaps.length < 3) return untold(`needs both families at three sizes, has ${gaps.length}`);
  const logs = gaps.map(({ N }) => Math.log(N));
  const statistic = (loss: Loss) =>
    slope(
      logs,
      gaps.map(({ size }) => {
        const difference = loss(of, size) - loss(against, size);
        return unit === "nats" ? difference : (100 * difference) / loss(against, size);
      }),
    );
  const all = places([{ at: `slope against ln N, ${unit}`, statistic }], replicates);
  return below(all, 0, "the slope against ln N");
}

function exponents({ fits, cells, replicates }: Evidence): Pick<Claim, "answer" | "reason" | "evidence"> {
  const pair = fitsOf(fits);
  if (!pair) return untold("needs both families at three sizes");
  if (!pair.every(({ identified }) => identified)) {
    return untold(
      "E is not identified, and an exponent depends on it; without offset the exponents are in the table of fits",
    );
  }
  return equal(
    places([{ at: "α of trilm − float", statistic: lawDifference(cells, "alpha") }], replicates),
    SAME_EXPONENT,
    "the difference of the exponents",
  );
}

function limits({ fits, cells, replicates }: Evidence): Pick<Claim, "answer" | "reason" | "evidence"> {
  const pair = fitsOf(fits);
  if (!pair) return untold("needs both families at three sizes");
  const unknown = pair.filter(({ identified }) => !identified).map(({ family }) => family);
  if (unknown.length > 0) return untold(`E of ${unknown.join(" and ")} is not identified`);
  const statistic = lawDifference(cells, "E");
  return below(
    places([{ at: "E of float − trilm", statistic: (loss) => -statistic(loss) }], replicates),
    0,
    "E of float − trilm",
  );
}

function fitsOf(fits: readonly Fit[]): [Fit, Fit] | undefined {
  const find = (family: string) =>
    fits.find((fit) => fit.family === family && fit.by === "total" && fit.offset);
  const [float, trilm] = [find("float"), find("trilm")];
  return float && trilm && [float, trilm];
}

/** How the schedules' difference of final loss over the seeds answers: by its 95 % interval of Student's t. */
function schedule({ ablation }: Evidence, what: string, of: string, against: string): Claim {
  const claim = `${what} lowers TriLM's final loss (${of} against ${against})`;
  const source = `${PAPER}, sections 3.3 and 4.3`;
  const found = ablation?.differences.find((d) => d.of === of && d.against === against);
  if (!found || found.low === undefined || found.high === undefined) {
    return { claim, source, ...untold("needs all four schedules with two seeds") };
  }
  const { mean: value, low, high } = found;
  const place = { at: `${ablation!.seeds.length} seeds`, value, low, high };
  return { claim, source, ...below([{ ...place, wide: { low, high } }], 0, `loss of ${of} − ${against}`) };
}

/** A parameter of TriLM's law minus that of FloatLM's, both with offset. */
function lawDifference(cells: readonly Cell[], key: "alpha" | "E") {
  const lawOf = (family: string) => {
    const own = cells.filter((cell) => cell.family === family);
    const law = powerLawOf(
      own.map(({ N }) => N),
      { offset: true },
    );
    return (loss: Loss) => law(own.map(({ size }) => loss(family, size)))[key];
  };
  const [trilm, float] = [lawOf("trilm"), lawOf("float")];
  return (loss: Loss) => trilm(loss) - float(loss);
}

function millions(N: number): string {
  return `${(N / 1e6).toPrecision(3)}M`;
}
