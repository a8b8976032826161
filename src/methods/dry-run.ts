import { checkFinite, decodeWeight } from "../formats/index.ts";
import type { TensorSpec } from "../models/model.ts";
import { partKey } from "../record/make.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, identity, type Matrix } from "../tensor/tensor.ts";
import { type Part, partsOf, type Weight, withParts } from "../tensor/weight.ts";
import type { Context } from "./method.ts";
import { checkPlan, type Rounded, type RoundingPlan } from "./round-model.ts";

/** What becomes of one of the matrices of a shape. */
export interface TriedShape {
  readonly shape: readonly number[];
  /** Of the matrices that have it; the first was compressed, and the second where there is one. */
  readonly names: readonly string[];
  /** Of the first. */
  readonly weight: Weight;
  /** Those of its parts that other matrices have too, which are stored once. */
  readonly shared: ReadonlySet<Part>;
  /** That it took to compress one. */
  readonly seconds: number;
}

/**
 * Compresses two matrices of each shape among the linear layers, which show what matrices share, as the plan says but without its passes over the calibration
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

  // The first stands for all but the second.
  const tries = [...shapes.values()].flatMap(([first, second, ...others]) => [
    { spec: first, names: namesOf([first, ...others]) },
    ...(second ? [{ spec: second, names: namesOf([second]) }] : []),
  ]);

  /** Some work with the matrices that are tried, and the seconds that it takes. */
  async function each<T>(task: string, work: (W: Matrix, context: Context, names: string[]) => Promise<T>) {
    const results = new Map<string, { result: T; seconds: number }>();
    for (const { spec, names } of tries) {
      job.onProgress?.({
        task,
        done: results.size,
        total: tries.length,
        unit: "matrices",
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
        const result = await work(W, context, names);
        results.set(spec.name, { result, seconds: (performance.now() - started) / 1000 });
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
  const seen = new Map<string, number>();
  while (linear.survey) {
    const survey = linear.survey();
    const found = await each("survey", (W, context, names) => survey.see(W, context, names));
    for (const [name, { seconds }] of found) seen.set(name, (seen.get(name) ?? 0) + seconds);
    linear = await survey.choose();
  }
  const tried = await each("try", (W, context) => linear.compress(W, context));
  const partOf = await onePartOfEach([...tried.values()].map(({ result }) => result));
  return [...shapes.values()].map((specs) => {
    const [{ name, shape }] = specs;
    const { result, seconds } = tried.get(name)!;
    const weight = withParts(result, (part) => partOf.get(part) ?? part);
    const shared = new Set([...partsOf(weight)].map(([, part]) => part).filter((part) => partOf.has(part)));
    return { shape, names: namesOf(specs), weight, shared, seconds: seconds + (seen.get(name) ?? 0) };
  });
}

/** Parts that several weights have: the first with the same content. */
async function onePartOfEach(weights: readonly Weight[]): Promise<Map<Part, Part>> {
  const found = new Map<string, { readonly parts: Part[]; readonly owners: Set<Weight> }>();
  for (const weight of weights) {
    for (const [, part] of partsOf(weight)) {
      const key = await partKey(part);
      const { parts, owners } = found.get(key) ?? { parts: [], owners: new Set() };
      found.set(key, { parts: [...parts, part], owners: owners.add(weight) });
    }
  }
  const several = [...found.values()].filter(({ owners }) => owners.size > 1);
  return new Map(several.flatMap(({ parts }) => parts.map((part) => [part, parts[0]] as const)));
}

function namesOf(specs: readonly TensorSpec[]): string[] {
  return specs.map(({ name }) => name);
}
