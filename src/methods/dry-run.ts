import { checkFinite, decodeWeight } from "../formats/index.ts";
import type { TensorSpec } from "../models/model.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, identity, type Matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { Context } from "./method.ts";
import { checkPlan, type Rounded, type RoundingPlan } from "./round-model.ts";

/** What becomes of one of the matrices of a shape. */
export interface TriedShape {
  readonly shape: readonly number[];
  /** Of the matrices that have it; the first was compressed. */
  readonly names: readonly string[];
  readonly weight: Weight;
  /** That it took to compress one. */
  readonly seconds: number;
}

/**
 * Compresses one matrix of each shape among the linear layers, as the plan says but without its passes over the calibration
 * text: where there is some H is the identity, and the Fisher information is 1. The bits are those of the real run,
 * but nearly where a budget is shared out among all matrices (`Compressor.survey`): those of a shape count as alike.
 */
export async function tryShapes(input: Rounded, plan: RoundingPlan, job: Job = {}): Promise<TriedShape[]> {
  checkPlan(input, plan);
  const { model, source, backend, name } = input;
  const shapes = Map.groupBy(
    model.tensors.filter(({ role }) => role === "linear"),
    ({ shape }) => shape.join("×"),
  );

  /** Some work with the first matrix of each shape, and the seconds that it takes. */
  async function each<T>(task: string, work: (W: Matrix, context: Context, names: string[]) => Promise<T>) {
    const results: { result: T; seconds: number }[] = [];
    for (const specs of shapes.values()) {
      const [spec] = specs;
      job.onProgress?.({
        task,
        done: results.length,
        total: shapes.size,
        unit: "shapes",
        note: spec.shape.join("×"),
      });
      job.signal?.throwIfAborted();
      const W = await floatsOf(spec);
      const H = plan.calibration?.length
        ? backend.upload(hostTensor([W.cols, W.cols], identity(W.cols).data))
        : undefined;
      const fisher = plan.linear.fisher ? new Float32Array(W.data.length).fill(1) : undefined;
      const started = performance.now();
      try {
        const context = { ...job, backend, name: spec.name, H, fisher };
        const result = await work(W, context, namesOf(specs));
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

  let { linear } = plan;
  const seen = [...shapes.values()].map(() => 0);
  while (linear.survey) {
    const survey = linear.survey();
    const found = await each("survey", (W, context, names) => survey.see(W, context, names));
    for (const [n, { seconds }] of found.entries()) seen[n] += seconds;
    linear = await survey.choose();
  }
  const tried = await each("try", (W, context) => linear.compress(W, context));
  return [...shapes.values()].map((specs, n) => ({
    shape: specs[0].shape,
    names: namesOf(specs),
    weight: tried[n].result,
    seconds: tried[n].seconds + seen[n],
  }));
}

function namesOf(specs: readonly TensorSpec[]): string[] {
  return specs.map(({ name }) => name);
}
