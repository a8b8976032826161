import { checkFinite, decodeWeight } from "../formats/index.ts";
import type { TensorSpec } from "../models/model.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, type Matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { Context } from "./method.ts";
import { checkPlan, type Rounded, type RoundingPlan } from "./round-model.ts";

/** What becomes of one of the matrices of a shape. */
export interface TriedShape {
  readonly shape: readonly number[];
  /** Of all matrices of this shape, the one that was compressed first. */
  readonly names: readonly string[];
  readonly weight: Weight;
  /** That it took to compress one. */
  readonly seconds: number;
}

/**
 * Compresses one matrix of each shape among the linear layers, as the plan says but without its passes over the calibration
 * text: where there is some H is the identity, and the Fisher information is 1. The bits are those of the real run;
 * where they are shared out among all matrices (`Compressor.survey`), they are shared out among these.
 */
export async function tryShapes(input: Rounded, plan: RoundingPlan, job: Job = {}): Promise<TriedShape[]> {
  checkPlan(input, plan);
  const { model, source, backend, name } = input;
  const shapes = Map.groupBy(
    model.tensors.filter(({ role }) => role === "linear"),
    ({ shape }) => shape.join("×"),
  );

  /** Some work with the first matrix of each shape, and the seconds that it takes. */
  async function each<T>(task: string, work: (W: Matrix, context: Context) => Promise<T>) {
    const results: { result: T; seconds: number }[] = [];
    for (const [spec] of shapes.values()) {
      job.onProgress?.({
        task,
        done: results.length,
        total: shapes.size,
        unit: "shapes",
        note: `${spec.shape.join("×")}`,
      });
      job.signal?.throwIfAborted();
      const W = await floatsOf(spec);
      const H = plan.calibration?.length ? backend.upload(identity(W.cols)) : undefined;
      const fisher = plan.linear.fisher ? new Float32Array(W.data.length).fill(1) : undefined;
      const started = performance.now();
      try {
        const result = await work(W, { ...job, backend, name: spec.name, H, fisher });
        results.push({ result, seconds: (performance.now() - started) / 1000 });
      } finally {
        if (H) backend.free(H);
      }
    }
    return results;
  }

  async function floatsOf(spec: TensorSpec): Promise<Matrix> {
    const weight = await source.read(spec.name);
    checkFinite(name, spec.name, weight);
    return decodeWeight(weight);
  }

  const survey = plan.linear.survey?.();
  const seen = survey && (await each("survey", (W, context) => survey.see(W, context)));
  const linear = survey ? await survey.choose() : plan.linear;
  const tried = await each("try", (W, context) => linear.compress(W, context));
  return [...shapes.values()].map((specs, n) => ({
    shape: specs[0].shape,
    names: specs.map((spec) => spec.name),
    weight: tried[n].result,
    seconds: tried[n].seconds + (seen?.[n].seconds ?? 0),
  }));
}

function identity(n: number) {
  const data = new Float32Array(n * n);
  for (let i = 0; i < n; i++) data[i * (n + 1)] = 1;
  return hostTensor([n, n], data);
}
