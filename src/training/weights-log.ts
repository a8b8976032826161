/** weights.jsonl: what became of the linear matrices in a run; its first line says what the others are about. */
export interface WeightsHeader {
  readonly lowbit: "weights";
  readonly version: 1;
  readonly family: string;
  /** Steps of the whole run, and between measurements. */
  readonly steps: number;
  readonly every: number;
  /** Of the whole model. */
  readonly parameters: number;
  /** What the optimizer keeps beside them. */
  readonly stateBytes: number;
  /** Range of w/γ that `histogram` counts; what lies beyond is in the first and the last bin. */
  readonly range: readonly [low: number, high: number];
  readonly matrices: readonly { readonly name: string; readonly rows: number; readonly cols: number }[];
}

/** One matrix at one time. */
export interface MatrixSample {
  /** ‖W‖, of the trained weights. */
  readonly norm: number;
  /** γ: mean of |Ŵ| over what is not 0, of each row; here the mean of the rows. Same units as the weights. */
  readonly scale: number;
  /** How many w/γ lie in each bin. */
  readonly histogram: readonly number[];
  /** How many effective weights are 0; not in the family `float`. */
  readonly zeros?: number;
  /** How many weights have another code than in the measurement before; not in the first, nor in the family `float`. */
  readonly flips?: number;
}

/** All matrices after a step, in the header's order. */
export interface WeightsSample {
  /** Steps done; 0 before the first. */
  readonly step: number;
  readonly matrices: readonly MatrixSample[];
  /** Differs from run to run, all else is the same bits on one backend. */
  readonly timing: {
    /** Of the measurement. */
    readonly seconds: number;
    /** Of the whole process, where that is known. */
    readonly memoryBytes?: number;
  };
}

/** Bins of a histogram, and what they span: an edge at ±½, where ternary rounding turns. */
export const BINS = 48;
export const RANGE = [-3, 3] as const;

/** A line of weights.jsonl; undefined when it is not one. Nothing of a damaged or foreign file passes for numbers. */
export function parseWeightsLine(value: unknown): WeightsHeader | WeightsSample | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const line = value as { [key: string]: unknown };
  if (!Array.isArray(line.matrices)) return undefined;
  if (line.lowbit === "weights" && line.version === 1) {
    const named = line.matrices.every(
      (m) => typeof m?.name === "string" && isCount(m.rows) && isCount(m.cols),
    );
    const counts =
      isCount(line.steps) && isCount(line.every) && [line.parameters, line.stateBytes].every(isCount);
    const range = Array.isArray(line.range) && line.range.length === 2 && line.range.every(isNumber);
    const whole = named && counts && range && typeof line.family === "string";
    return whole ? (value as WeightsHeader) : undefined;
  }
  const isMatrix = (m: MatrixSample | null) =>
    typeof m === "object" &&
    m !== null &&
    isNumber(m.norm) &&
    isNumber(m.scale) &&
    Array.isArray(m.histogram) &&
    m.histogram.every(isCount) &&
    (m.zeros === undefined || isCount(m.zeros)) &&
    (m.flips === undefined || isCount(m.flips));
  const { timing } = line as { timing?: { seconds?: unknown; memoryBytes?: unknown } };
  const timed =
    isNumber(timing?.seconds) && (timing?.memoryBytes === undefined || isNumber(timing.memoryBytes));
  return isCount(line.step) && timed && line.matrices.every(isMatrix) ? (value as WeightsSample) : undefined;
}

export function isHeader(line: WeightsHeader | WeightsSample): line is WeightsHeader {
  return "lowbit" in line;
}

export function isSample(line: WeightsHeader | WeightsSample): line is WeightsSample {
  return "step" in line;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function isCount(value: unknown): value is number {
  return isNumber(value) && Number.isInteger(value) && value >= 0;
}
