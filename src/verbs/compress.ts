import { z } from "zod";
import {
  BLOCKS_KEY,
  checkOutputFolder,
  decodeText,
  holdingWriter,
  type KeptWeights,
  keptWeights,
  type ModelFile,
  modelWriter,
  outlineOf,
  packedOutline,
  readText,
  weightsBytes,
} from "../files/index.ts";
import type { Format } from "../formats/format.ts";
import { bytesPerMatrix, clipped, formatByName } from "../formats/index.ts";
import { calibrationWindows } from "../methods/calibration.ts";
import { adapted, type Compressor, decomposition, rounding } from "../methods/compressor.ts";
import { type TriedShape, tryShapes } from "../methods/dry-run.ts";
import { weightings } from "../methods/error-weights.ts";
import { compressionByName } from "../methods/index.ts";
import { type MixOptions, mix } from "../methods/mix.ts";
import {
  checkPlan,
  formatOf,
  type Kept,
  type Rounded,
  type RoundingPlan,
  roundModel,
} from "../methods/round-model.ts";
import { type RoundedLayer, roundedLayerSchema, storedLayer } from "../methods/rounded-layer.ts";
import { stackOrder } from "../methods/stack-order.ts";
import { type TuningOptions, tuningSchema } from "../methods/tune-block.ts";
import { formatOfBits, formatOfSize, outlinesOf } from "../methods/uniform.ts";
import { type StoredBits, storedBits } from "../models/stored.ts";
import { baseName, fingerprint, startRecord } from "../record/make.ts";
import type { Fingerprint, Job, Record } from "../record/record.ts";
import { lowbitVersion } from "../record/version.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError, sizeOf } from "../tensor/tensor.ts";
import {
  bitsByUse,
  bytesOf,
  describeWeight,
  type Part,
  type Use,
  type Weight,
  withParts,
} from "../tensor/weight.ts";
import { parseYaml } from "../training/recipe.ts";
import { type CalibrationText, calibrationText } from "./calibration-text.ts";
import { type BackendChoice, backendFor, type Opened, openChecked, tokenizerOf } from "./load.ts";
import { stackLosses } from "./stack-losses.ts";

/** How one matrix is compressed. */
const wayChoices = z.strictObject({
  /** rtn, gptq, trilm or reallm. Default: gptq with calibration text, rtn without. */
  method: z.string().optional(),
  /** Format of the linear layers: `int4-g64`, `tq2_0`. */
  format: z.string().optional(),
  /** Weights that share a scale, where the format's name does not say it. */
  group: z.int().optional(),
  /** Bits of a code, instead of a format: intB in the largest groups that fit, with a clip search. */
  bits: z.number().optional(),
  /** Search for the range of each group that has the least error. */
  clip: z.boolean().optional(),
  /** Of gptq, added to the diagonal of H as a share of its mean. Default 0.01. */
  damping: z.number().positive().optional(),
  /** Of gptq: columns by descending diag(H). */
  actOrder: z.boolean().optional(),
  /** Of gptq: groups fitted to the weights as they were. Default: as actOrder. */
  staticGroups: z.boolean().optional(),
  /** Of a method that puts matrices together from parts (reallm): its own options; `format`, `bits`, `group`, `clip` and `damping` join them. */
  options: z.record(z.string(), z.unknown()).optional(),
  /** Of trilm: scales of a matrix, as it was trained on several devices. */
  shards: z.strictObject({ count: z.int().min(1), along: z.enum(["rows", "cols"]) }).optional(),
});

/** How to compress: the options of the command line, and the keys of a recipe. */
export const compressChoices = wayChoices.extend({
  /** Most bytes of the weights, instead of a format: the most bits of `bits` that fit. */
  size: z.int().positive().optional(),
  /** Each matrix in one of several ways, so that all together take so many bits and lose the least (methods/mix.ts). */
  mix: z
    .strictObject({
      /** Bits per weight that all linear layers together may take, everything that is stored counted. */
      bits: z.number().positive(),
      /** The ways: what each has that differs from the choices beside `mix`. */
      of: z
        .array(wayChoices)
        .min(1)
        .default([{ bits: 2 }, { bits: 3 }, { bits: 4 }]),
      /** By what errors of different matrices are compared. Default: fisher with calibration text, else none. */
      weighting: z.enum(weightings).optional(),
    })
    .optional(),
  /** Format of embedding and head, which otherwise keep 16 bits. */
  others: z.string().optional(),
  /** Inputs of a layer come through the layers before it in its block already rounded. */
  trueSequential: z.boolean().optional(),
  /** Tunes the parts of each block after it was compressed; what is not said has its default. */
  tuning: tuningSchema.optional(),
  /** Windows of calibration text. Default 128. */
  samples: z.int().min(1).optional(),
  /** Tokens of a window. Default: the model's context, 2048 at most. */
  context: z.int().min(1).optional(),
  /** Which windows of the text. Default 0. */
  seed: z.int().optional(),
});

export type CompressChoices = z.input<typeof compressChoices>;
/** The same with defaults filled in. */
type Chosen = z.output<typeof compressChoices>;

export interface CompressOptions extends CompressChoices, BackendChoice {
  readonly model: string;
  /** Folder to write. */
  readonly output: string;
  /** A YAML file of `CompressChoices`, instead of giving them here. */
  readonly recipe?: string;
  /** A text file, or a text and what to call it. */
  readonly calibration?: CalibrationText;
  readonly tokenizer?: string;
  readonly dryRun?: false;
}

/** Nothing is written: two matrices of each shape are compressed, and the result says what all would take. */
export interface DryRunOptions extends Omit<CompressOptions, "dryRun"> {
  readonly dryRun: true;
}

export interface CompressResult {
  readonly method: string;
  readonly format: string;
  /** What matrices share is counted once. */
  readonly bitsPerWeight: StoredBits;
  /** Bits per weight of the linear layers by what they are for. */
  readonly split: Readonly<{ [use in Use]?: number }>;
  /** Of the weights' files. */
  readonly bytes: { readonly before: number; readonly after: number };
  readonly layers: readonly RoundedLayer[];
  /** Tokens of calibration text that were used. */
  readonly calibrationTokens: number;
}

/** What compressing would give. */
export interface DryRunResult {
  readonly method: string;
  readonly shapes: readonly {
    readonly shape: readonly number[];
    /** How many matrices have it. */
    readonly matrices: number;
    /** What they are made of. */
    readonly format: string;
    readonly bits: number;
    /** Bits per weight by what is stored. */
    readonly split: RoundedLayer["split"];
    /** To compress one of them. */
    readonly seconds: number;
  }[];
  /** As of `bytes`, at most: signs and books that matrices have in common are counted for each, though stored once. */
  readonly bitsPerWeight: StoredBits;
  /** Of the weights' files. */
  readonly bytes: { readonly before: number; readonly after: number };
  /** To compress all matrices; passes over calibration text and tuning come on top. */
  readonly compressionSeconds: number;
}

/**
 * Writes a smaller model as a folder: its linear layers rounded, embedding and
 * head in 16 bits unless told, norms in float32. The folder appears whole or
 * not at all, and what cannot be done is said before anything is written.
 * Finished matrices are kept beside it until then (files/kept-weights.ts): after an interruption the same call goes on
 * where it was, and ends in the same bytes.
 */
export async function compress(options: CompressOptions, job?: Job): Promise<Record<CompressResult>>;
export async function compress(options: DryRunOptions, job?: Job): Promise<Record<DryRunResult>>;
export async function compress(
  options: CompressOptions | DryRunOptions,
  job: Job = {},
): Promise<Record<CompressResult | DryRunResult>> {
  const {
    model: spec,
    output,
    recipe,
    calibration,
    tokenizer,
    backend: backendName,
    threads,
    dryRun = false,
    ...given
  } = options;
  const data: Fingerprint[] = [];
  const chosen =
    recipe === undefined
      ? checkedBy(compressChoices, given, { where: "compress" })
      : await readChoices(recipe, given, data);
  const opened = await openChecked(spec, { tokenizer }, job);
  try {
    const { file, model } = opened;
    const text = calibration && (await calibrationText(calibration, data));
    const settings = settle(opened, chosen, text !== undefined);
    const finish = startRecord("compress", {
      ...(dryRun ? { dryRun } : {}),
      model: baseName(spec),
      ...(recipe === undefined ? {} : { recipe: baseName(recipe) }),
      ...settings,
    });
    const windows =
      text === undefined ? undefined : calibrationWindows(text, tokenizerOf(opened), settings.windows);
    const plan = planOf(settings, windows);

    const backend = await backendFor({ backend: backendName, threads }, job);
    try {
      const input = { model, source: file.source, name: file.name, backend };
      checkPlan(input, plan);
      warn(opened, plan, job);
      const work: Work = { input, file, output, settings, plan, data, finish };
      return dryRun ? await tryOut(work, job) : await write(work, job);
    } finally {
      backend.dispose();
    }
  } finally {
    await opened.file.close();
  }
}

/** All that is known before the first matrix is compressed. */
interface Work {
  readonly input: Rounded;
  readonly file: ModelFile;
  readonly output: string;
  readonly settings: Settings;
  readonly plan: RoundingPlan;
  readonly data: readonly Fingerprint[];
  readonly finish: ReturnType<typeof startRecord>;
}

async function write(work: Work, job: Job): Promise<Record<CompressResult>> {
  const { input, file, output, settings, plan, data, finish } = work;
  const { model } = input;
  const { format } = plan.linear;
  const source: Fingerprint = { name: file.name, ...(await file.fingerprint()) };
  const kept = needsKeeping(settings) ? await openKept(work, source, job) : undefined;
  const writer = format
    ? await modelWriter(output, {
        config: file.config,
        weights: outlinesOf(input, { ...plan, linear: format }),
      })
    : await holdingWriter(output, { config: file.config, order: model.tensors.map(({ name }) => name) });
  try {
    const layers: RoundedLayer[] = [];
    const bytes = new Map<string, number>();
    const counted = new Set<Part>();
    const stacked = plan.linear.stacked === "loss" ? new Map<string, Weight>() : undefined;
    const linears = new Set(model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name));
    const split: { [use in Use]?: number } = {};
    let weights = 0;
    const keeping = { ...plan, kept: kept && inPlan(kept) };
    for await (const { name, weight, layer } of roundModel(input, keeping, job)) {
      const own = bitsByUse(await writer.write(name, weight), counted);
      bytes.set(name, Object.values(own).reduce((sum, bits) => sum + bits, 0) / 8);
      stacked?.set(name, weight);
      if (!layer) continue;
      layers.push(layer);
      if (!linears.has(name)) continue;
      weights += sizeOf(weight.shape);
      for (const [use, bits] of Object.entries(own) as [Use, number][]) split[use] = (split[use] ?? 0) + bits;
    }
    for (const use of Object.keys(split) as Use[]) split[use]! /= weights;
    const byError = layers.flatMap(({ name, blocks }) => (blocks ? [{ name, blocks }] : []));
    const stacks = stacked ? await stackLosses(input, stacked, byError, plan.calibration!, job) : byError;
    const record = finish<CompressResult>(
      input.backend,
      { models: [source], data, seed: settings.windows.seed },
      {
        method: plan.linear.name,
        format: plan.linear.format?.name ?? "parts",
        bitsPerWeight: storedBits(model.tensors, (name) => bytes.get(name)!),
        split,
        bytes: { before: file.bytes, after: writer.bytes },
        layers,
        calibrationTokens: plan.calibration?.reduce((sum, ids) => sum + ids.length, 0) ?? 0,
      },
    );
    await writer.finish({
      ...(stacks.length === 0 ? {} : { config: { [BLOCKS_KEY]: stackOrder(stacks, plan.linear.stacked) } }),
      tokenizerFiles: await file.tokenizerFiles(),
      generation: file.generation,
      record,
    });
    await kept?.remove();
    return record;
  } catch (error) {
    if (kept && kept.count > 0)
      job.onWarning?.(`${matrices(kept.count)} kept in ${kept.name}; the same command goes on from there`);
    throw error;
  } finally {
    await writer.discard(); // does nothing after finish
  }
}

/** Rounding to nearest is quicker than the disk. */
function needsKeeping(settings: Settings): boolean {
  return (
    settings.tuning !== undefined ||
    waysOf(settings).some(({ method }) => {
      const { kind, calibrated } = compressionByName(method);
      return calibrated || kind === "decomposition";
    })
  );
}

/** The matrices that an interrupted run of the same work has finished. */
async function openKept(
  { input: { model, backend }, output, settings, plan }: Work,
  { sha256 }: Fingerprint,
  { onWarning }: Job,
): Promise<KeptWeights<RoundedLayer>> {
  const deciding = {
    lowbit: lowbitVersion,
    backend: backend.name, // their sums differ in the last bits
    model: sha256,
    settings,
    calibration: plan.calibration?.map((ids) => [...ids]),
  };
  const key = await fingerprint("key", new TextEncoder().encode(JSON.stringify(deciding)));
  const shapes = new Map(model.tensors.map(({ name, shape }) => [name, shape.join("×")]));
  const format = plan.linear.format?.name;
  const kept = await keptWeights(output, {
    key: key.sha256,
    onWarning,
    check(name, weight, note) {
      const layer = checkedBy(roundedLayerSchema, note, { where: `${name}: note` });
      const [needed, met] = [shapes.get(name), weight.shape.join("×")];
      if (needed !== met) throw new InputError(`${name}: must have shape ${needed}, has ${met}`);
      const made = describeWeight(weight);
      if (layer.name !== name || layer.format !== made || made !== (format ?? made))
        throw new InputError(`${name}: a ${made} is not what its note or the settings say`);
      return layer;
    },
  });
  if (kept.count > 0)
    onWarning?.(`${kept.name}: ${matrices(kept.count)} kept from before; going on with the others`);
  return kept;
}

function matrices(count: number): string {
  return `${count} ${count === 1 ? "matrix is" : "matrices are"}`;
}

function inPlan(kept: KeptWeights<RoundedLayer>): Kept {
  return {
    async get(name) {
      const found = await kept.get(name);
      return found && { weight: found.weight, layer: found.note };
    },
    put: (name, weight, layer) => kept.put(name, weight, layer),
  };
}

async function tryOut(work: Work, job: Job): Promise<Record<DryRunResult>> {
  const { input, file, output, settings, plan, data, finish } = work;
  const { model, source } = input;
  await checkOutputFolder(output);
  const tried = await tryShapes(input, plan, job);
  const weights = new Map(tried.flatMap((one) => one.names.map((name) => [name, copyOf(one)] as const)));
  const bytes = new Map<string, number>();
  const counted = new Set<Part>();
  const owners = new Map<Part, string>();
  const outlines = model.tensors.map((spec) => {
    const { name, shape } = spec;
    const weight = weights.get(name);
    const format = formatOf(spec, source, plan);
    const cols = shape.at(-1)!;
    bytes.set(name, weight ? bytesOf(weight, counted) : bytesPerMatrix(format, sizeOf(shape) / cols, cols));
    return weight ? outlineOf(name, weight, owners) : packedOutline(name, shape, format.name);
  });
  return finish<DryRunResult>(
    input.backend,
    { data, seed: settings.windows.seed },
    {
      method: plan.linear.name,
      shapes: tried.map(({ shape, names, weight, seconds }) => {
        const { format, bits, split } = storedLayer(names[0], weight, plan.linear.name);
        return { shape, matrices: names.length, format, bits, split, seconds };
      }),
      bitsPerWeight: storedBits(model.tensors, (name) => bytes.get(name)!),
      bytes: { before: file.bytes, after: weightsBytes(outlines) },
      compressionSeconds: tried.reduce((sum, { names, seconds }) => sum + names.length * seconds, 0),
    },
  );
}

/** A matrix like the one that was tried: parts of its own, but for those that others have too. */
function copyOf({ weight, shared }: TriedShape): Weight {
  return withParts(weight, (part) => (shared.has(part) ? part : { ...part }));
}

/** How one matrix is compressed, with every default filled in. */
interface Way {
  readonly method: string;
  readonly format?: string;
  readonly clip: boolean;
  readonly methodOptions: object;
}

/** Choices with every default filled in, as the record keeps them. */
type Settings = (Way | { readonly mix: MixOptions & { readonly of: readonly Way[] } }) & {
  readonly others?: string;
  readonly trueSequential: boolean;
  readonly tuning?: TuningOptions;
  readonly windows: { readonly length: number; readonly count: number; readonly seed: number };
};

function waysOf(settings: Settings): readonly Way[] {
  return "mix" in settings ? settings.mix.of : [settings];
}

function settle(opened: Opened, chosen: Chosen, hasText: boolean): Settings {
  const { others, trueSequential = false, tuning, mix } = chosen;
  const { context } = opened.model.config;
  const length = chosen.context ?? Math.min(context, 2048);
  if (length > context) {
    throw new InputError(`compress: a context of ${length} is more than the model's ${context}; lower it`);
  }
  const wayOf = (own: z.output<typeof wayChoices>) => {
    const options = chosen.options && own.options ? { ...chosen.options, ...own.options } : undefined;
    return settleWay(opened, { ...chosen, ...own, ...(options ? { options } : {}) }, hasText);
  };
  return {
    ...(mix === undefined
      ? wayOf({})
      : {
          mix: {
            bits: mix.bits,
            weighting: mix.weighting ?? (hasText ? "fisher" : "none"),
            of: mix.of.map(wayOf),
          },
        }),
    ...(others === undefined ? {} : { others: formatByName(others).name }),
    trueSequential,
    ...(tuning === undefined ? {} : { tuning: { ...tuning, seed: chosen.seed ?? tuning.seed } }),
    windows: { length, count: chosen.samples ?? 128, seed: chosen.seed ?? 0 },
  };
}

function settleWay(opened: Opened, chosen: Chosen, hasText: boolean): Way {
  const { method = hasText ? "gptq" : "rtn" } = chosen;
  const { kind } = compressionByName(method);
  return {
    method,
    ...(kind === "rounding" ? ofRounding(opened, chosen, method) : ofDecomposition(chosen, method)),
  };
}

/** What only a method that chooses codes of a format has. */
function ofRounding(opened: Opened, chosen: CompressChoices, method: string) {
  const { bits, size, damping, actOrder, staticGroups, shards } = chosen;
  if ([chosen.format, bits, size].filter((way) => way !== undefined).length !== 1) {
    throw new InputError("compress: needs one of --format, --bits and --size (or a recipe that holds one)");
  }
  const gptqOptions = given({ damping, actOrder, staticGroups });
  const trilmOptions = given({ shards });
  for (const [owner, its] of [
    ["gptq", gptqOptions],
    ["trilm", trilmOptions],
    ["a method that puts matrices together", given({ set: chosen.options })],
  ] as const) {
    const [first] = Object.keys(its);
    if (first && method !== owner)
      throw new InputError(`compress: ${first} is an option of ${owner}, not of ${method}`);
  }
  return {
    format: formatFor(opened, chosen),
    clip: chosen.clip ?? chosen.format === undefined,
    methodOptions: { ...gptqOptions, ...trilmOptions },
  };
}

/** What only a method that puts matrices together has. */
function ofDecomposition(chosen: CompressChoices, method: string) {
  const { options, format, bits, group, clip, damping, size, actOrder, staticGroups, shards } = chosen;
  const [wrong] = Object.keys(given({ size, actOrder, staticGroups, shards }));
  if (wrong)
    throw new InputError(
      `compress: ${method} puts matrices together from parts and has no ${wrong}; leave it out`,
    );
  return { clip: false, methodOptions: { ...given({ format, bits, group, clip, damping }), ...options } };
}

function given(wanted: object): object {
  return Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined));
}

function planOf(settings: Settings, calibration: readonly Int32Array[] | undefined): RoundingPlan {
  const { tuning, others, trueSequential } = settings;
  const ways = waysOf(settings);
  const compressors = ways.map(compressorOf);
  const linear = "mix" in settings ? mix(compressors, settings.mix) : compressors[0];
  const clip = ways.every((way) => way.clip);
  return {
    linear: tuning ? adapted(linear, tuning) : linear,
    tuning,
    ...(others === undefined ? {} : { others: formatFrom(others, clip) }),
    calibration,
    trueSequential,
  };
}

function compressorOf({ method: name, format, clip, methodOptions }: Way): Compressor {
  const method = compressionByName(name);
  if (method.kind === "decomposition") return decomposition(method, methodOptions);
  return rounding(method, formatFrom(format!, clip), methodOptions);
}

function formatFrom(name: string, clip: boolean): Format {
  return clip ? clipped(formatByName(name)) : formatByName(name);
}

/** Name of the linear layers' format: as given, or by the rules of `bits` and `size`. */
function formatFor({ model, file }: Opened, { format, group, bits, size, others }: CompressChoices): string {
  const fitted = { model, source: file.source };
  if (bits !== undefined) return formatOfBits(fitted, bits, group);
  if (size !== undefined)
    return formatOfSize(fitted, size, others === undefined ? undefined : formatByName(others), group);
  if (group === undefined) return formatByName(format!).name;
  if (/-g\d/.test(format!)) {
    throw new InputError(`compress: ${format} names its group already; leave out --group ${group}`);
  }
  return formatByName(`${format}-g${group}`).name;
}

function warn({ file, model }: Opened, { linear, calibration }: RoundingPlan, job: Job): void {
  const linears = model.tensors.filter(({ role }) => role === "linear");
  const packed = linears.find(({ name }) => !["f32", "f16", "bf16"].includes(file.source.format(name)));
  if (packed) {
    job.onWarning?.(
      `${file.name}: ${packed.name} is stored as ${file.source.format(packed.name)} already; rounding it to ${linear.format?.name ?? linear.name} adds to its error`,
    );
  }
  const tokens = calibration?.reduce((sum, ids) => sum + ids.length, 0) ?? 0;
  const widest = Math.max(...linears.map(({ shape }) => shape[1]));
  if (calibration && tokens < widest) {
    job.onWarning?.(
      `calibration: ${tokens} tokens are fewer than the ${widest} inputs of the widest layer; give more text`,
    );
  }
}

async function readChoices(path: string, given: CompressChoices, data: Fingerprint[]): Promise<Chosen> {
  const name = baseName(path);
  const [both] = Object.entries(given).filter(([, value]) => value !== undefined);
  if (both)
    throw new InputError(
      `compress: --recipe says how to compress; leave out ${both[0]}, or write it into ${name}`,
    );
  const bytes = await readText(path);
  data.push(await fingerprint(name, bytes));
  return checkedBy(compressChoices, parseYaml(decodeText(name, bytes), name), {
    where: name,
    whole: "recipe",
  });
}
