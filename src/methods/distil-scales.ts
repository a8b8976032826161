import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import { elements, partOf, storeF16 } from "../formats/format.ts";
import { compound } from "../kernels/compound.ts";
import type { Model, Weights } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import { adamw } from "../optimization/adamw.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";

export interface DistilOptions {
  /** Sequences in a step, cut to one length. */
  readonly batch: number;
  readonly steps: number;
  /** Step of AdamW at the start, as a share of each scale; a cosine takes it to 0. */
  readonly rate: number;
  /** A matrix keeps one scale. */
  readonly tied: boolean;
}

export interface Distilled {
  readonly deltas: Map<string, Weight>;
  /** Mean square of the difference of logits in the first and in the last tenth of the steps. */
  readonly before: number;
  readonly after: number;
}

/**
 * Tunes the scales of deltas in `binary` and nothing else, so that base and deltas give the logits of the fine-tuned model:
 *
 *   minimize ‖z_tuned(x) − z(x; α)‖², the mean over logits and tokens of the text;  α = α₀·θ, θ = 1 at first
 *
 * Liu et al., 2024 (https://arxiv.org/abs/2402.10193), equation 4 ("scale distillation"): AdamW, 4 sequences of 128
 * tokens, 200 steps. Ours: θ instead of α is what AdamW moves, as its step does not know how large a scale is.
 *
 * `tuned` are the weights of the fine-tuned model on the backend, `base` the matrices that the deltas are over; all that
 * is no delta is the tuned model's own. Costs two forward passes and one backward pass of the model a step.
 */
export async function distilScales(
  { model, backend, tuned, base }: { model: Model; backend: Backend; tuned: Weights; base: Weights },
  deltas: ReadonlyMap<string, Weight>,
  windows: readonly Int32Array[],
  { batch, steps, rate, tied }: DistilOptions,
  job: Job = {},
): Promise<Distilled> {
  const pause = pauses(job);
  const length = windows[0]?.length ?? 0;
  const whole = windows.filter((ids) => ids.length === length);
  if (length === 0)
    throw new InputError("bitdelta: needs calibration text to tune its scales; give some, or steps=0");

  const made: Tensor[] = [];
  const keep = <T extends Tensor>(t: T): T => {
    made.push(t);
    return t;
  };
  const θs = new Map<string, Tensor>();
  const weights = new Map(tuned);
  for (const [name, weight] of deltas) {
    const { shape } = weight;
    const θ = keep(backend.upload(hostTensor([shape[0]], new Float32Array(shape[0]).fill(1))));
    const matrix = keep(backend.upload(weight));
    const scaled = compound(shape, { kind: "scaleRows", scales: θ, matrix });
    θs.set(name, θ);
    weights.set(name, compound(shape, { kind: "sum", terms: [base.get(name)!, scaled] }));
  }
  const rope = keep(backend.upload(ropeTable(model.config, length)));
  const parameters = [...θs.values()].map((tensor) => ({ tensor, decays: false, role: "linear" as const }));
  const optimizer = adamw(backend, parameters, { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, clip: 0 });
  const tape = new Tape(backend, θs.values());
  const losses: number[] = [];
  const norm = keep(backend.zeros([1]));

  function logits(
    ops: Backend | Tape,
    of: Weights,
    ids: Tensor,
    at: { batch: number; time: number; from: number },
  ) {
    let x = model.embed(ops, ids, of);
    for (let i = 0; i < model.config.layers; i++) x = model.block(ops, i, x, of, at, rope);
    return ops.linear(model.finalNorm(ops, x, of), of.get(model.headWeight)!);
  }

  try {
    for (let step = 0; step < steps; step++) {
      job.onProgress?.({ task: "distil", done: step, total: steps, unit: "steps" });
      const ids = new Int32Array(batch * length);
      for (let j = 0; j < batch; j++) ids.set(whole[(step * batch + j) % whole.length], j * length);
      const at = { batch, time: length, from: 0 };
      const n = ids.length * model.config.vocabulary;
      backend.scope(() => {
        const x = backend.upload(hostTensor([ids.length], ids));
        const wanted = backend.scope(() => logits(backend, tuned, x, at));
        const z = logits(tape, weights, x, at);
        // (2/n)·(z − z_tuned) is the gradient of the mean square, and its norm gives the loss.
        const dz = backend.combine(z, wanted, 2 / n, -2 / n);
        backend.squaredNorm(norm, dz, 0);
        tape.backward(z, dz);
      });
      losses.push(((await backend.read(norm))[0] * n) / 4);
      const gradients = [...θs.values()].map((θ) => tape.gradients.get(θ)!);
      if (tied) for (const gradient of gradients) await sumInto(backend, gradient);
      optimizer.step(gradients, step + 1, (rate * (1 + Math.cos((Math.PI * step) / steps))) / 2, 0);
      tape.clear();
      await pause();
    }
    const tunedDeltas = new Map<string, Weight>();
    for (const [name, weight] of deltas) {
      tunedDeltas.set(name, withScales(weight, (await backend.read(θs.get(name)!)) as Float32Array));
    }
    const some = Math.max(1, Math.floor(steps / 10));
    return { deltas: tunedDeltas, before: mean(losses.slice(0, some)), after: mean(losses.slice(-some)) };
  } finally {
    tape.clear();
    optimizer.dispose();
    for (const t of made) backend.free(t);
  }
}

/** The sum of a gradient's elements in each of them, so that they move as one. */
async function sumInto(backend: Backend, gradient: Tensor): Promise<void> {
  const values = await backend.read(gradient);
  const sum = (values as Float32Array).reduce((a, b) => a + b, 0);
  backend.write(gradient, new Float32Array(values.length).fill(sum));
}

/** A matrix of signs with its scales times θ. */
function withScales({ shape, expression: e }: Weight, θ: Float32Array): Weight {
  if (e.kind !== "packed") throw new Error("distilScales: needs packed signs");
  const scales = elements(e.parts.scales, Float16Array).map((scale, r) =>
    storeF16("bitdelta", "tuned scale", scale * θ[r]),
  );
  return packedWeight(shape, e.format, { ...e.parts, scales: partOf("f16", e.parts.scales.shape, scales) });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
