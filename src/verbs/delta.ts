import { z } from "zod";
import { DELTA_KEY, holdingWriter } from "../files/index.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { calibrationWindows } from "../methods/calibration.ts";
import { type Compressor, decomposition, rounding } from "../methods/compressor.ts";
import { type DistilOptions, distilScales } from "../methods/distil-scales.ts";
import { compressionByName } from "../methods/index.ts";
import type { Context } from "../methods/method.ts";
import { roundModel } from "../methods/round-model.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Fingerprint, Job, Record } from "../record/record.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import { bytesOf, describeWeight, type Weight } from "../tensor/weight.ts";
import { differences } from "../training/differences.ts";
import { type CalibrationText, calibrationText } from "./calibration-text.ts";
import { type BackendChoice, backendFor, loadWeights, openChecked, tokenizerOf } from "./load.ts";

const choices = z.strictObject({
  /** bitdelta, delta-come, or any way to compress a matrix. */
  method: z.string().default("bitdelta"),
  /** Of a method that rounds to a format: `int4-g64`. */
  format: z.string().optional(),
  /** The method's own. */
  options: z.record(z.string(), z.unknown()).default({}),
  /** Of bitdelta: steps in which its scales are tuned. Default: 200 with calibration text, 0 without. */
  steps: z.int().min(0).optional(),
  /** Step of their optimizer, as a share of a scale. */
  rate: z.number().positive().default(0.02),
  /** Sequences in a step, and their tokens. */
  batch: z.int().min(1).default(4),
  length: z.int().min(1).default(128),
  /** Windows of calibration text, of the model's context (2048 at most), that other methods see. */
  samples: z.int().min(1).default(128),
  /** Which windows of the text. */
  seed: z.int().default(0),
});

export type DeltaChoices = z.input<typeof choices>;

export interface DeltaOptions extends DeltaChoices, BackendChoice {
  /** The fine-tuned model. */
  readonly model: string;
  /** What it was made from. */
  readonly base: string;
  /** Folder to write. */
  readonly output: string;
  /** A text file, or a text and what to call it. */
  readonly calibration?: CalibrationText;
}

export interface DeltaMatrix {
  readonly name: string;
  readonly format: string;
  /** Stored bits for each weight of the matrix. */
  readonly bits: number;
  /** ‖Δ − Δ̂‖²/‖Δ‖² */
  readonly relativeError: number;
}

export interface DeltaResult {
  readonly method: string;
  readonly matrices: readonly DeltaMatrix[];
  /** Tensors that are no matrices of linear layers and are stored whole, as they differ. */
  readonly whole: readonly { readonly name: string; readonly bytes: number }[];
  /** Of the fine-tuned model's weights, and of the delta's. */
  readonly bytes: { readonly before: number; readonly after: number };
  /** Mean square of what the logits differ by, where scales were tuned. */
  readonly distilled?: { readonly before: number; readonly after: number };
}

/**
 * Writes what fine-tuning changed, in few bits, as a folder that is opened together with the base (`BASE+DELTA`). Linear
 * layers are what the base has plus the method's Δ̂; embedding, head and norms are stored whole where they differ, in
 * 16 bits and norms in float32. What is equal is not stored. With calibration text the method sees the inputs that
 * the layers have in the fine-tuned model as it then is.
 */
export async function delta(options: DeltaOptions, job: Job = {}): Promise<Record<DeltaResult>> {
  const {
    model: spec,
    base: baseSpec,
    output,
    calibration,
    backend: backendName,
    threads,
    ...given
  } = options;
  const chosen = checkedBy(choices, given, { where: "delta" });
  const compressor = compressorOf(chosen);
  const data: Fingerprint[] = [];
  const opened = await openChecked(spec, {}, job);
  const { file, model } = opened;
  try {
    const base = await openChecked(baseSpec, {}, job);
    try {
      const met = differences(base.model.config, model.config);
      if (met !== "") throw new InputError(`delta: ${file.name} is another model than its base: ${met}`);
      const text = calibration && (await calibrationText(calibration, data));
      const tunes = chosen.method === "bitdelta" ? (chosen.steps ?? (text === undefined ? 0 : 200)) : 0;
      if (chosen.method !== "bitdelta" && chosen.steps !== undefined)
        throw new InputError(`delta: steps tune the scales of bitdelta, ${chosen.method} has none`);
      if (tunes > 0 && text === undefined)
        throw new InputError("delta: scales are tuned on text; give some with --calibration, or --steps 0");
      const windows = (length: number, count: number) =>
        calibrationWindows(text!, tokenizerOf(opened), { length, count, seed: chosen.seed });
      const finish = startRecord("delta", { model: baseName(spec), base: baseName(baseSpec), ...chosen });

      const backend = await backendFor({ backend: backendName, threads }, job);
      try {
        const deltas = new Map<string, Weight>();
        const originals = new Map<string, Matrix>();
        const linear: Compressor = {
          ...compressor,
          async compress(W, context: Context) {
            const before = await base.file.source.read(context.name!);
            const B = decodeWeight(before).data;
            const Δ = matrix(
              W.rows,
              W.cols,
              W.data.map((w, i) => w - B[i]),
            );
            if (Δ.data.every((d) => d === 0)) return before;
            const weight = await compressor.compress(Δ, context);
            deltas.set(context.name!, weight);
            originals.set(context.name!, Δ);
            return { shape: weight.shape, expression: { kind: "sum", terms: [before, weight] } };
          },
        };
        const whole = new Map<string, Weight>();
        const isLinear = new Set(
          model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name),
        );
        const context = Math.min(model.config.context, 2048);
        // The scales of bitdelta do not depend on inputs.
        const seen =
          text === undefined || chosen.method === "bitdelta" ? undefined : windows(context, chosen.samples);
        const rounded = { model, source: file.source, name: file.name, backend };
        for await (const { name, weight } of roundModel(rounded, { linear, calibration: seen }, job)) {
          if (isLinear.has(name)) continue;
          const [own, its] = [await file.source.read(name), await base.file.source.read(name)];
          if (!same(own, its)) whole.set(name, weight);
        }
        let distilled: DeltaResult["distilled"];
        if (tunes > 0 && deltas.size > 0) {
          const { batch, rate, length } = chosen;
          const settings = { batch, rate, steps: tunes, tied: chosen.options.scales !== "rows" };
          const result = await tuned(
            { spec, baseSpec, backend },
            deltas,
            windows(length, batch * tunes),
            settings,
            job,
          );
          for (const [name, weight] of result.deltas) deltas.set(name, weight);
          distilled = { before: result.before, after: result.after };
        }

        const { sha256 } = await base.file.fingerprint();
        const { quantization_config: _, ...config } = file.config;
        const head = { base: base.file.name, sha256, added: [...deltas.keys()] };
        const writer = await holdingWriter(output, {
          config: { ...config, [DELTA_KEY]: head },
          order: model.tensors.map(({ name }) => name),
        });
        try {
          for (const [name, weight] of [...deltas, ...whole]) await writer.write(name, weight);
          const record = finish(
            backend,
            { models: [await printOf(file), await printOf(base.file)], data, seed: chosen.seed },
            {
              method: chosen.method,
              matrices: Array.from(deltas, ([name, weight]) => row(name, weight, originals.get(name)!)),
              whole: Array.from(whole, ([name, weight]) => ({ name, bytes: bytesOf(weight) })),
              bytes: { before: file.bytes, after: writer.bytes },
              ...(distilled ? { distilled } : {}),
            },
          );
          await writer.finish({
            tokenizerFiles: await file.tokenizerFiles(),
            generation: file.generation,
            record,
          });
          return record;
        } finally {
          await writer.discard(); // does nothing after finish
        }
      } finally {
        backend.dispose();
      }
    } finally {
      await base.file.close();
    }
  } finally {
    await file.close();
  }
}

function compressorOf({ method: name, format, options }: z.output<typeof choices>): Compressor {
  const method = compressionByName(name);
  if (method.kind === "decomposition") {
    if (format !== undefined) throw new InputError(`delta: ${name} puts matrices together and has no format`);
    return decomposition(method, options);
  }
  if (format === undefined) throw new InputError(`delta: ${name} rounds to a format; give one with --format`);
  return rounding(method, formatByName(format), options);
}

/** Both models on the backend, and between them the scales that are tuned. */
async function tuned(
  { spec, baseSpec, backend }: { spec: string; baseSpec: string; backend: Parameters<typeof loadWeights>[1] },
  deltas: ReadonlyMap<string, Weight>,
  windows: readonly Int32Array[],
  options: DistilOptions,
  job: Job,
) {
  const quiet = { ...job, onWarning: undefined };
  const teacher = await loadWeights(spec, backend, {}, quiet);
  try {
    const base = await loadWeights(baseSpec, backend, {}, quiet);
    try {
      const over: ReadonlyMap<string, Tensor> = base.weights;
      const models = { model: teacher.model, backend, tuned: teacher.weights, base: over };
      return await distilScales(models, deltas, windows, options, job);
    } finally {
      await base.free();
    }
  } finally {
    await teacher.free();
  }
}

function row(name: string, weight: Weight, Δ: Matrix): DeltaMatrix {
  const stored = decodeWeight(weight).data;
  let [lost, all] = [0, 0];
  for (const [i, d] of Δ.data.entries()) {
    lost += (d - stored[i]) ** 2;
    all += d ** 2;
  }
  const bits = (8 * bytesOf(weight)) / Δ.data.length;
  return { name, format: describeWeight(weight), bits, relativeError: lost / all };
}

function same(a: Weight, b: Weight): boolean {
  const [x, y] = [a, b].map((weight) => decodeWeight(weight).data);
  return x.every((value, i) => value === y[i]);
}

async function printOf(file: { name: string; fingerprint(): Promise<{ bytes: number; sha256: string }> }) {
  return { name: file.name, ...(await file.fingerprint()) };
}
