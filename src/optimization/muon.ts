import type { Backend } from "../backends/backend.ts";
import { adamwRule } from "./adamw.ts";
import { type CommonOptions, type Parameter, type Rule, RuleOptimizer } from "./optimizer.ts";

export interface MuonOptions extends CommonOptions {
  readonly momentum: number;
  readonly nesterov: boolean;
  /** Steps of the iteration that makes the momentum orthogonal. */
  readonly iterations: number;
  /**
   * What an orthogonal update is multiplied by. rms: 0.2·√max(rows, cols), whose elements are as large as AdamW's, so
   * that AdamW's rate and decay fit. shape: √max(1, rows/cols), for which rates near 0.02 are usual.
   */
  readonly scale: "rms" | "shape";
  /** Rate of the hidden matrices' updates, as a multiple of the schedule's. */
  readonly rateFactor: number;
}

/**
 *   M ← μ·M + g,  O = orthogonalize(g + μ·M),  w ← w − rate·(rateFactor·scale·O + decay·w)
 *
 * Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon/); scale "rms": Liu et al., 2025
 * (https://arxiv.org/abs/2502.16982), eq. 4.
 */
function muonRule({ momentum, nesterov, iterations, scale, rateFactor, clip }: MuonOptions): Rule {
  return {
    states: (shape) => [{ name: "momentum", shape, format: "f32" }],
    move(backend, w, gradient, [buffer], { norm, rate, decay }) {
      const [rows, cols] = w.shape;
      const size =
        scale === "rms" ? 0.2 * Math.sqrt(Math.max(rows, cols)) : Math.sqrt(Math.max(1, rows / cols));
      backend.scope(() => {
        const update = backend.zeros(w.shape);
        backend.momentum(buffer, update, gradient, norm, momentum, nesterov ? 1 : 0, clip);
        backend.orthogonalize(update, iterations);
        backend.descend(w, update, norm, rate, size * rateFactor, decay);
      });
    },
  };
}

/**
 * Muon for the matrices of the blocks; AdamW for embedding, head and norms.
 * A step of a matrix (r, c) with r ≤ c costs 5·(4·r²·c + 2·r³) operations, as
 * much as training it on 5·r tokens or less.
 */
export function muon(
  backend: Backend,
  parameters: readonly Parameter[],
  options: MuonOptions,
): RuleOptimizer {
  const [hidden, others] = [muonRule(options), adamwRule(options)];
  const rules = parameters.map(({ tensor, role }) =>
    role === "linear" && tensor.shape.length === 2 ? hidden : others,
  );
  return new RuleOptimizer(backend, parameters, rules, options);
}
