import type { Backend } from "../backends/backend.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type CommonOptions, type Parameter, type Rule, RuleOptimizer } from "./optimizer.ts";

export interface CollageOptions extends CommonOptions {
  /** light: the weights are pairs of bf16 numbers. plus: the second moments too, for which bf16 forgets nothing when β₂ is near 1. */
  readonly variant: "light" | "plus";
}

/** Weights that are pairs of bf16 numbers: see kernels/collage.ts. */
function collageRule({ beta1, beta2, epsilon, clip, variant }: CollageOptions, none: Tensor): Rule {
  return {
    states(shape) {
      const words = { shape: [Math.ceil(sizeOf(shape) / 2)], format: "i32" } as const;
      const names = ["rest", "first", "second", ...(variant === "plus" ? ["secondRest"] : [])];
      return [{ name: "lost", shape: [3], format: "f32" }, ...names.map((name) => ({ name, ...words }))];
    },
    begin(backend, w, [, rest]) {
      backend.splitBf16(w, rest);
    },
    move(backend, w, gradient, [lost, rest, first, second, secondRest = none], { norm, rate, decay, step }) {
      const numbers = [rate, beta1, beta2, epsilon, decay, step, clip] as const;
      backend.collage(w, gradient, rest, first, second, secondRest, lost, norm, ...numbers);
    },
  };
}

/**
 * AdamW on weights and moments in bf16, with the error of each weight kept in
 * a second bf16 number. The weights' float32 tensors hold bf16 values exactly.
 *
 * States are 6 bytes a parameter (light) or 8 (plus); where weights were
 * stored as bf16, not in the float32 tensors that kernels read, another 2 would be saved.
 *
 * Yu et al., 2024 (Collage, https://arxiv.org/abs/2405.03637).
 */
export class Collage extends RuleOptimizer {
  readonly #lost: readonly Tensor[];
  readonly #none: Tensor;

  constructor(backend: Backend, parameters: readonly Parameter[], options: CollageOptions) {
    const none = backend.keep(backend.zeros([0], "i32"));
    const rule = collageRule(options, none);
    super(
      backend,
      parameters,
      parameters.map(() => rule),
      options,
    );
    this.#none = none;
    this.#lost = parameters.map((_, i) => new Map(this.state(i)).get("lost")!);
  }

  /**
   * Of all updates so far that were not 0, the share that changed nothing
   * (`lostUpdates`), and that weights of bf16 alone would have lost (`lostInBf16`).
   */
  override async measures(): Promise<{ lostUpdates: number; lostInBf16: number }> {
    const sums = [0, 0, 0];
    for (const t of this.#lost)
      for (const [k, count] of (await this.backend.read(t)).entries()) sums[k] += count;
    const [moved, plainly, here] = sums;
    return { lostUpdates: here / Math.max(1, moved), lostInBf16: plainly / Math.max(1, moved) };
  }

  override dispose(): void {
    super.dispose();
    this.backend.free(this.#none);
  }
}
