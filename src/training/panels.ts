import { heatMap } from "../pictures/heat-map.ts";
import { histogram } from "../pictures/histogram.ts";
import { type Line, lineChart, type Point } from "../pictures/line-chart.ts";
import type { Picture } from "../pictures/svg.ts";
import { duration, size } from "../record/words.ts";
import type { EventLine, TimedLine } from "./log.ts";
import type { MatrixSample, WeightsHeader, WeightsSample } from "./weights-log.ts";

/** What is known of a run, finished or not. */
export interface Seen {
  readonly log: readonly TimedLine[];
  readonly header?: WeightsHeader;
  readonly samples: readonly WeightsSample[];
  readonly events?: readonly EventLine[];
  /** Norm to which gradients are clipped. */
  readonly clip?: number;
}

/** Part of a run that is drawn, and how wide. */
export interface View {
  readonly width: number;
  readonly from: number;
  readonly to: number;
  /** Step whose values are told; default: the last. */
  readonly cursor?: number;
}

/** One picture of a run with its title; the same on the live page and in the report. */
export interface Panel {
  readonly id: string;
  readonly title: string;
  readonly note?: string;
  /** Whether it takes the page's whole width. */
  readonly wide?: boolean;
  draw(view: View): Picture;
}

/** A fiftieth of the run is what smooth lines are the mean of. */
const SMOOTHED = 50;
const HEIGHT = 215;

/** The pictures of a run, in the order in which they are looked at. */
export function panelsOf(seen: Seen): Panel[] {
  return [...runPanels(seen), ...weightPanels(seen)];
}

/** A panel of lines; `look` is what sets them apart from plain ones. */
function chart(
  id: string,
  title: string,
  lines: readonly Line[],
  {
    note,
    ...look
  }: { note?: string; logarithmic?: boolean; zero?: boolean; text?: (value: number) => string } = {},
): Panel {
  return {
    id,
    title,
    note,
    draw: (view) => lineChart({ label: title, lines, height: HEIGHT, ...look, ...view }),
  };
}

/** What is logged at each step. */
function runPanels({ log, samples, clip, events = [] }: Seen): Panel[] {
  const series = (value: (line: TimedLine) => number | undefined): Point[] =>
    log.flatMap((line): Point[] => {
      const y = value(line);
      return y === undefined ? [] : [[line.step, y]];
    });
  const both = (label: string, points: readonly Point[]): Line[] => [
    { label, color: 0, points, look: "band" },
    { label: `${label}, smoothed`, color: 0, points: smoothed(points) },
  ];
  const loss = series(({ loss }) => loss);
  const held = series(({ validationLoss }) => validationLoss);
  const rates = series(({ rate }) => rate);
  const decays = series(({ weightDecay }) => weightDecay);
  const norms = series(({ gradientNorm }) => gradientNorm);
  const speeds = series(({ timing }) => timing.tokensPerSecond);
  const memory = samples.flatMap(({ step, timing }): Point[] =>
    timing.memoryBytes === undefined ? [] : [[step, timing.memoryBytes / 1e6]],
  );
  const edges = [log[0]?.step ?? 0, log.at(-1)?.step ?? 0];
  const clipLine: Line[] =
    clip === undefined || log.length === 0
      ? []
      : [{ label: "clipped at", color: 1, look: "dashed", points: edges.map((step) => [step, clip]) }];
  // Where a run went back its steps begin anew: the mark stands at the step that it went back to.
  const returns = events.flatMap((event): Point[] => {
    const line = event.event === "rollback" ? log.find(({ step }) => step >= event.to) : undefined;
    return line ? [[line.step, line.loss]] : [];
  });
  const whole = { zero: true, text: (value: number) => value.toFixed(0) };
  return [
    chart("loss", "Loss, nats per token", [
      ...both("training", loss),
      { label: "validation", color: 1, points: held, look: "marks" },
      ...widthsIn(log).map((bits, w): Line => {
        const points = series(({ widthLosses }) => widthLosses?.find((width) => width.bits === bits)?.loss);
        return { label: `at ${bits} bits`, color: 3 + (w % 4), points, look: "marks" };
      }),
      ...(returns.length === 0
        ? []
        : [{ label: "went back to", color: 2, points: returns, look: "marks" } as Line]),
    ]),
    chart("rate", "Learning rate", [{ label: "rate", color: 0, points: rates }], { zero: true }),
    chart("decay", "Weight decay", [{ label: "decay", color: 0, points: decays }], { zero: true }),
    chart("gradient", "Norm of the gradient, before clipping", [...both("norm", norms), ...clipLine], {
      logarithmic: true,
    }),
    chart("speed", "Tokens per second", both("training", speeds), whole),
    ...(memory.length === 0
      ? []
      : [
          chart(
            "memory",
            "Memory of the process, MB",
            [{ label: "resident", color: 0, points: memory }],
            whole,
          ),
        ]),
  ];
}

/** What was measured of the weights from time to time. */
function weightPanels({ header, samples }: Seen): Panel[] {
  if (!header || samples.length === 0) return [];
  const byKind = (value: (all: readonly MatrixSample[], weights: number) => number | undefined): Line[] =>
    kindsOf(header).map(({ kind, members }, k) => {
      const weights = members.reduce((sum, m) => sum + weightsIn(header, m), 0);
      return {
        label: kind,
        color: k % 7,
        look: ([undefined, "dashed", "dotted"] as const)[k % 3],
        points: samples.flatMap(({ step, matrices }): Point[] => {
          const y = value(
            members.flatMap((m) => matrices[m] ?? []),
            weights,
          );
          return y === undefined ? [] : [[step, y]];
        }),
      };
    });
  const distance = `${header.every} ${header.every === 1 ? "step" : "steps"}`;
  const shares = [
    { field: "zeros", title: "Zeros, % of weights", note: undefined },
    {
      field: "flips",
      title: "Flips, % of weights",
      note: `Weights whose code is another one than at the measurement before, usually ${distance} earlier.`,
    },
  ] as const;
  const known = shares.filter(({ field }) =>
    samples.some(({ matrices }) => matrices.some((matrix) => matrix[field] !== undefined)),
  );
  const shareOf = (field: "zeros" | "flips") => (all: readonly MatrixSample[], weights: number) =>
    all.some((matrix) => matrix[field] === undefined)
      ? undefined
      : (100 * all.reduce((sum, matrix) => sum + matrix[field]!, 0)) / weights;
  const normOf = (all: readonly MatrixSample[]) => Math.hypot(...all.map(({ norm }) => norm));
  return [
    chart("norms", "Norm of the trained weights, by kind", byKind(normOf), { zero: true }),
    ...known.map(({ field, title, note }) =>
      chart(field, `${title}, by kind`, byKind(shareOf(field)), { note, text: percent }),
    ),
    ...known.map(({ field, title, note }) => ({
      id: `${field}-layers`,
      title: `${title}, each layer`,
      note: field === "flips" ? `${note} Shades follow the square root.` : note,
      wide: true,
      draw: (view: View) =>
        heatMap({
          label: `${title}, each layer`,
          rows: header.matrices.map(({ name }, m) => ({
            name: shortName(name),
            values: samples.map(
              ({ matrices }) => matrices[m] && shareOf(field)([matrices[m]], weightsIn(header, m)),
            ),
          })),
          steps: samples.map(({ step }) => step),
          root: field === "flips",
          text: percent,
          ...view,
        }),
    })),
  ];
}

/** The histogram of each matrix at a step (default: the last measured), outlined as it was at the first. */
export function histogramsOf(
  { header, samples }: Seen,
  width: number,
  step = Number.POSITIVE_INFINITY,
): Picture[] {
  const sample = samples.findLast((other) => other.step <= step) ?? samples[0];
  if (!header || !sample) return [];
  const [low, high] = header.range;
  return header.matrices.flatMap(({ name }, m) => {
    const counts = sample.matrices[m]?.histogram;
    const before = sample === samples[0] ? undefined : samples[0].matrices[m]?.histogram;
    return counts ? [histogram({ title: shortName(name), counts, before, low, high, width })] : [];
  });
}

/** What a run has come to, in words. */
export function factsOf({ log, header, samples, events = [] }: Seen): [name: string, value: string][] {
  const last = log.at(-1);
  const facts: [string, string][] = [];
  const say = (name: string, value: string | undefined) => {
    if (value !== undefined) facts.push([name, value]);
  };
  const seconds = log.reduce((sum, { timing }) => sum + timing.seconds, 0);
  if (last) {
    const held = log.filter(({ validationLoss }) => validationLoss !== undefined);
    const recent = log.slice(-Math.max(20, Math.ceil(log.length / SMOOTHED)));
    const perStep = recent.reduce((sum, { timing }) => sum + timing.seconds, 0) / recent.length;
    const left = header ? header.steps - last.step : undefined;
    say("step", header ? `${grouped(last.step)} of ${grouped(header.steps)}` : grouped(last.step));
    say("time left", left ? duration(left * perStep) : undefined);
    say("time trained", duration(seconds));
    say(
      "training loss",
      smoothed(log.map(({ step, loss }) => [step, loss]))
        .at(-1)?.[1]
        .toFixed(4),
    );
    say("validation loss", held.at(-1)?.validationLoss?.toFixed(4));
    say("tokens", grouped(last.tokens));
    // Of a run that goes on how fast it is now, of one that is over how fast it was.
    const speed = left === 0 ? last.tokens / seconds : last.tokens / last.step / perStep;
    say("tokens per second", grouped(Math.round(speed)));
  }
  if (header) {
    say("family", header.family);
    say("parameters", grouped(header.parameters));
    const perParameter = (header.stateBytes / header.parameters).toFixed(1);
    say("optimizer", `${size(header.stateBytes)}, ${perParameter} bytes a parameter`);
    say("in linear layers", grouped(header.matrices.reduce((sum, { rows, cols }) => sum + rows * cols, 0)));
  }
  const rollbacks = events.filter(({ event }) => event === "rollback").length;
  say("rollbacks", rollbacks === 0 ? undefined : grouped(rollbacks));
  const sample = samples.at(-1);
  if (header && sample?.matrices.length && sample.matrices.every(({ zeros }) => zeros !== undefined)) {
    const zeros = sample.matrices.reduce((sum, matrix) => sum + matrix.zeros!, 0);
    say(
      "zeros",
      `${percent((100 * zeros) / header.matrices.reduce((sum, { rows, cols }) => sum + rows * cols, 0))} %`,
    );
  }
  say("memory", sample?.timing.memoryBytes === undefined ? undefined : size(sample.timing.memoryBytes));
  if (sample && seconds > 0) {
    const measuring = samples.reduce((sum, { timing }) => sum + timing.seconds, 0);
    say("measuring weights", `${((100 * measuring) / seconds).toPrecision(2)} % of the time`);
  }
  return facts;
}

/** When something happened beside the steps, and what. */
export function eventsInWords({ events = [] }: Pick<Seen, "events">): [when: string, what: string][] {
  return events.map((event) => {
    if (event.event === "chosen") {
      const names = event.layers.map(({ name, damage }) => `${name} (+${damage.toPrecision(2)})`);
      return ["before the first step", `only what rounding hurts most learns: ${names.join(", ")}`];
    }
    const { at, why, to, skipped } = event;
    const batches = `${skipped.length === 1 ? "batch" : "batches"} ${skipped.join(", ")}`;
    return [`step ${grouped(at)}`, `${why}; went back to step ${grouped(to)} and left out ${batches}`];
  });
}

/** A recipe, or anything else that was read as data, as names and values: `model.dim` 256. */
export function flattened(value: unknown, prefix = ""): [name: string, value: string][] {
  if (typeof value !== "object" || value === null) return prefix === "" ? [] : [[prefix, String(value)]];
  if (Array.isArray(value) && value.every((item) => typeof item !== "object"))
    return [[prefix, value.join(", ")]];
  return Object.entries(value).flatMap(([key, inner]) =>
    flattened(inner, prefix === "" ? key : `${prefix}.${key}`),
  );
}

/** Last step of a run that pictures have room for. */
export function lastStep({ log, header, samples }: Seen): number {
  return Math.max(1, log.at(-1)?.step ?? 0, samples.at(-1)?.step ?? 0, header?.steps ?? 0);
}

/**
 * Exponential means over about a fiftieth of the points, s of them:
 * m_t = Σ_i β^i·y_{t−i} / Σ_i β^i with β = 1 − 2/(s+1).
 */
export function smoothed(points: readonly Point[]): Point[] {
  const β = 1 - 2 / (Math.max(1, points.length / SMOOTHED) + 1);
  let sum = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    sum = β * sum + y;
    weight = β * weight + 1;
    return [x, sum / weight];
  });
}

/** Of what is in percent: `33.3`, `0.12`. */
function percent(value: number): string {
  return String(Number(value < 1 ? value.toPrecision(2) : value.toPrecision(3)));
}

function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

/** `3 q_proj` for `model.layers.3.self_attn.q_proj.weight`. */
function shortName(name: string): string {
  const [, block, kind] = /(?:^|\.)layers\.(\d+)\.(?:.*\.)?([^.]+)\.weight$/.exec(name) ?? [];
  return block === undefined ? name : `${block} ${kind}`;
}

/** Widths at which losses were measured. */
function widthsIn(log: readonly TimedLine[]): number[] {
  return log.find(({ widthLosses }) => widthLosses !== undefined)?.widthLosses?.map(({ bits }) => bits) ?? [];
}

function weightsIn(header: WeightsHeader, m: number): number {
  return header.matrices[m].rows * header.matrices[m].cols;
}

/** Matrices that play the same part in all blocks. */
function kindsOf({ matrices }: WeightsHeader): { kind: string; members: number[] }[] {
  const kinds = new Map<string, number[]>();
  for (const [m, { name }] of matrices.entries()) {
    const kind = shortName(name).replace(/^\d+ /, "");
    kinds.set(kind, [...(kinds.get(kind) ?? []), m]);
  }
  return [...kinds].map(([kind, members]) => ({ kind, members }));
}
