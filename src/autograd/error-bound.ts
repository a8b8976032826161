import type { Backend } from "../backends/backend.ts";
import { type KernelName, kernels, type Operations, operationsOver } from "../kernels/index.ts";
import { type Kernel, tensorsIn, type View } from "../kernels/kernel.ts";
import { elementsView } from "../kernels/view.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { addTo, pullBack, type Step } from "./tape.ts";

/** A computation whose rounding errors can be bounded. */
export interface Bounded {
  /** What the computation gave. */
  readonly result: Tensor;
  /**
   * How far Σ dy⊙result may be from exact arithmetic on any backend whose
   * operations stay within their bounds; two such backends differ by at most
   * twice as much.
   */
  bound(dy: Tensor): Promise<number>;
  /** Frees the result and all that led to it. */
  free(): void;
}

/**
 * Room for what the first-order bound leaves out: local bounds and adjoints are
 * taken where this backend computed them, and not along the way to the exact
 * values. Local bounds are relative changes of about 10⁻⁵; together they move a
 * model's logits by hundredths at most, where softmax, RMSNorm and SiLU change
 * their slopes by parts of the same order. The factor covers adjoints that are
 * wrong by a quarter.
 */
const SECOND_ORDER = 1.25;

/**
 * Runs `body` and bounds what float32 may do to it. The error that each
 * operation makes by itself (its kernel's `bound`) moves a scalar
 * s = Σ dy⊙result by its adjoint, to first order:
 *
 *   |s − exact s| ≤ Σ_operations Σ_i |∂s/∂out_i|·bound_i
 *
 * The local bounds are computed once; every `bound` costs one backward pass.
 * Weights must be float32. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.8 (running
 * error analysis), with adjoints in place of worst-case propagation.
 */
export async function errorBound(backend: Backend, body: (ops: Operations) => Tensor): Promise<Bounded> {
  const steps: Step[] = [];
  const made = new Set<Tensor>();
  const run = (name: KernelName, args: readonly unknown[]) => {
    const outputs = backend.forward(name, args).map((t) => backend.keep(t));
    steps.push({ name, args, outputs });
    made.add(outputs[0]);
    return outputs[0];
  };
  const result = body(operationsOver(run));

  const views = new Map<Tensor, View>();
  const bounds = new Map<Tensor, Float64Array>();
  const view = async (t: Tensor) => {
    const known = views.get(t) ?? elementsView(t.shape, await backend.read(t));
    views.set(t, known);
    return known;
  };
  for (const { name, args, outputs } of steps) {
    const kernel = kernels[name] as Kernel;
    const inputs = await Promise.all(tensorsIn(args).map(view));
    const results = await Promise.all(outputs.map(view));
    bounds.set(outputs[0], kernel.bound(inputs, results, kernel.numbers(...args))[0]);
  }

  /** Adjoints of all that was made, by tensor. */
  const adjoints = (dy: Tensor) =>
    backend.scope(() => {
      const sums = new Map([[result, dy]]);
      for (const step of steps.toReversed()) {
        const adjoint = sums.get(step.outputs[0]);
        if (!adjoint) continue;
        pullBack(
          backend,
          step,
          adjoint,
          (t) => made.has(t),
          (t, gradient) => addTo(backend, sums, t, gradient),
        );
      }
      for (const [, adjoint] of sums) if (adjoint !== dy) backend.keep(adjoint);
      return sums;
    });

  return {
    result,
    async bound(dy) {
      let total = 0;
      for (const [t, adjoint] of adjoints(dy)) {
        total += weightedSum(await backend.read(adjoint), bounds.get(t)!);
        if (adjoint !== dy) backend.free(adjoint);
      }
      return SECOND_ORDER * total;
    },
    free() {
      for (const { outputs } of steps) for (const t of outputs) backend.free(t);
    },
  };
}

/** Σ |adjoint_i|·bound_i */
function weightedSum(adjoint: ArrayLike<number>, bound: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < bound.length; i++) sum += Math.abs(adjoint[i]) * bound[i];
  return sum;
}
