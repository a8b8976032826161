import { compare as compareModels } from "../evaluation/divergence.ts";
import { losses } from "../evaluation/loss.ts";
import { type Sequence, windows } from "../evaluation/sequences.ts";
import { type Cluster, meanOfClusters, pairedDifference } from "../evaluation/statistics.ts";
import { decodeText } from "../files/index.ts";
import type { Format } from "../formats/format.ts";
import { clipped, integer } from "../formats/index.ts";
import { generate, promptIds } from "../generation/generate.ts";
import { Session } from "../generation/session.ts";
import { rounding } from "../methods/compressor.ts";
import { roundings } from "../methods/index.ts";
import { type RoundingPlan, roundedModel } from "../methods/round-model.ts";
import type { Model } from "../models/model.ts";
import type { Running } from "../models/run.ts";
import { runStored, storedBits } from "../models/stored.ts";
import { baseName, fingerprint, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { bytesOf } from "../tensor/weight.ts";
import { type BackendChoice, backendFor, type Loaded, load } from "../verbs/load.ts";
import { advise } from "./advice.ts";
import type { Candidate } from "./candidate.ts";
import type { Comparison } from "./report.ts";

export interface BitWidthsOptions extends BackendChoice {
  /** The float model: it is compressed, and everything is compared with it. */
  readonly float: string;
  /** Models of the same tokenizer that were trained in few bits, set beside. */
  readonly trained?: readonly TrainedModel[];
  /** Text to calibrate with: sampled from the model, never the one measured on. */
  readonly calibration: NamedText;
  /** Text to measure on. */
  readonly text: NamedText;
}

export interface TrainedModel {
  readonly name: string;
  readonly family: "ternary" | "binary";
  readonly model: string;
}

export interface NamedText {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Tokens that a model sees at once when it is measured; each window is a cluster of the statistics. */
const CONTEXT = 256;
/** Tokens of the calibration text that are used, in sequences of CONTEXT. */
const CALIBRATION = 12_288;
const DECODED = 64;

/**
 * The formats of the comparison: per row at 8 and 6 bits; below, groups with a
 * clip search, which at 3 bits halves the loss; at 2 bits an offset as well.
 */
const FORMATS: readonly { readonly label: string; readonly format: Format }[] = [
  { label: "int8", format: integer(8) },
  { label: "int6", format: integer(6) },
  { label: "int4-g128", format: clipped(integer(4, { group: 128 })) },
  { label: "int3-g128", format: clipped(integer(3, { group: 128 })) },
  { label: "int2-offset-g64", format: clipped(integer(2, { group: 64, offset: true })) },
];
const METHODS = ["rtn", "gptq"] as const;

/**
 * How few bits can this model have? Compresses a float model to 8, 6, 4, 3 and
 * 2 bits with RTN and GPTQ, measures every result against it on the same
 * windows of one text, and advises by a stated rule.
 */
export async function bitWidths(options: BitWidthsOptions, job: Job = {}): Promise<Record<Comparison>> {
  const { trained = [] } = options;
  const finish = startRecord("bit-widths", {
    float: baseName(options.float),
    ...(trained.length > 0 ? { trained: trained.map(({ model }) => baseName(model)) } : {}),
    context: CONTEXT,
    calibrationTokens: CALIBRATION,
    formats: FORMATS.map(({ label }) => label),
    methods: METHODS,
  });
  const data = [
    await fingerprint(options.text.name, options.text.bytes),
    await fingerprint(options.calibration.name, options.calibration.bytes),
  ];
  if (data[0].sha256 === data[1].sha256) {
    throw new InputError(
      `bit-widths: ${options.text.name} is the calibration text too; measure on a text that no model has seen`,
    );
  }
  const backend = await backendFor(options, job);
  try {
    const float = await load(options.float, backend, {}, job);
    try {
      const cut = await windows(decodeText(options.text.name, options.text.bytes), float.tokenizer, CONTEXT);
      const base: Baseline = { float, sequences: cut.all, clusters: await losses(float, cut.all, job) };
      const calibration = calibrationFrom(options.calibration, float);

      const candidates: Candidate[] = [await floatCandidate(base, job)];
      const total = FORMATS.length * METHODS.length + trained.length;
      const announce = (note: string) =>
        job.onProgress?.({ task: "compare", done: candidates.length - 1, total, unit: "models", note });
      for (const { label, format } of FORMATS) {
        for (const method of METHODS) {
          const name = `${method} ${label}`;
          announce(name);
          const plan = { linear: rounding(roundings[method], format), calibration };
          candidates.push(await roundedCandidate(name, method, plan, base, quiet(job)));
        }
      }
      const models = [await float.fingerprint()];
      for (const { name, family, model } of trained) {
        announce(name);
        const loaded = await load(model, backend, {}, quiet(job));
        try {
          candidates.push(await trainedCandidate({ name, family }, loaded, base, quiet(job)));
          models.push(await loaded.fingerprint());
        } finally {
          await loaded.free();
        }
      }
      const tokens = cut.tokens.toLocaleString("en-US");
      return finish(
        backend,
        { models, data },
        {
          candidates,
          advice: advise(candidates),
          protocol: `Measured on ${options.text.name}: ${tokens} tokens in ${cut.all.length} windows of ${CONTEXT} (stride ${CONTEXT}); calibrated on ${options.calibration.name}.`,
        },
      );
    } finally {
      await float.free();
    }
  } finally {
    backend.dispose();
  }
}

/** The float model, and its losses on the windows that all are measured on. */
interface Baseline {
  readonly float: Loaded;
  readonly sequences: readonly Sequence[];
  readonly clusters: readonly Cluster[];
}

function calibrationFrom(text: NamedText, { tokenizer }: Loaded): Int32Array[] {
  const ids = tokenizer.encode(decodeText(text.name, text.bytes)).subarray(0, CALIBRATION);
  const sequences: Int32Array[] = [];
  for (let from = 0; from < ids.length; from += CONTEXT) sequences.push(ids.slice(from, from + CONTEXT));
  return sequences;
}

async function floatCandidate(base: Baseline, job: Job): Promise<Candidate> {
  const { file, model } = base.float;
  return {
    name: "float f16",
    family: "float",
    format: "f16",
    reference: true,
    ...sizes(model, (tensor) => file.source.bytes(tensor)),
    loss: meanOfClusters(base.clusters),
    tokensPerSecond: await decodeSpeed(base.float, base.float, job),
    layers: [],
  };
}

async function trainedCandidate(
  named: Pick<TrainedModel, "name" | "family">,
  trained: Loaded,
  base: Baseline,
  job: Job,
): Promise<Candidate> {
  const { file, model } = trained;
  const linear = model.tensors.find(({ role }) => role === "linear")!;
  return {
    ...named,
    format: file.source.format(linear.name),
    reference: false,
    ...sizes(model, (tensor) => file.source.bytes(tensor)),
    ...(await compare(trained, base, job)),
    tokensPerSecond: await decodeSpeed(trained, base.float, job),
    layers: [],
  };
}

async function roundedCandidate(
  name: string,
  family: "rtn" | "gptq",
  plan: RoundingPlan,
  base: Baseline,
  job: Job,
): Promise<Candidate> {
  const { backend, model, file } = base.float;
  const started = performance.now();
  const input = { model, source: file.source, backend, name: file.name };
  const { weights, layers } = await roundedModel(input, plan, job);
  const seconds = (performance.now() - started) / 1000;
  const running = runStored(model, weights, backend);
  try {
    return {
      name,
      family,
      format: plan.linear.format!.name,
      reference: false,
      ...sizes(model, (tensor) => bytesOf(weights.get(tensor)!)),
      ...(await compare(running, base, job)),
      tokensPerSecond: await decodeSpeed(running, base.float, job),
      seconds,
      layers: layers.map((layer) => ({ name: layer.name, relativeError: layer.relativeError })),
    };
  } finally {
    running.free();
  }
}

async function compare(running: Running, { float, sequences, clusters }: Baseline, job: Job) {
  const own = await compareModels(float, running, sequences, job);
  return {
    loss: meanOfClusters(own.clusters),
    difference: pairedDifference(own.clusters, clusters),
    divergence: own.divergence,
  };
}

function sizes(model: Model, stored: (name: string) => number) {
  const bytes = model.tensors.reduce((sum, { name }) => sum + stored(name), 0);
  return { bytes, bitsPerWeight: storedBits(model.tensors, stored) };
}

/** Tokens made in a second, one after another, after the first. */
async function decodeSpeed(running: Running, { tokenizer }: Loaded, job: Job): Promise<number> {
  const session = new Session(running, DECODED + 8);
  try {
    let made = 0;
    let started = 0;
    const options = { tokens: DECODED, temperature: 1, seed: 1 };
    for await (const _ of generate(session, tokenizer, promptIds(tokenizer, "The"), options, job)) {
      if (made++ === 0) started = performance.now();
    }
    return made > 1 ? (1000 * (made - 1)) / (performance.now() - started) : 0;
  } finally {
    session.free();
  }
}

/** The same job without its progress: the comparison shows its own. */
function quiet({ signal, onWarning }: Job): Job {
  return { signal, onWarning };
}
