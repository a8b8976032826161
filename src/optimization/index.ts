import type { Backend } from "../backends/backend.ts";
import { adamw } from "./adamw.ts";
import { adamw4 } from "./adamw4.ts";
import { adamw8 } from "./adamw8.ts";
import { Collage } from "./collage.ts";
import { muon } from "./muon.ts";
import type { Optimizer, Parameter } from "./optimizer.ts";
import type { OptimizerOptions } from "./options.ts";

/** What makes each optimizer, by the name that a recipe gives it. */
export const optimizers: {
  readonly [Name in OptimizerOptions["name"] & string]: (
    backend: Backend,
    parameters: readonly Parameter[],
    options: Extract<OptimizerOptions, { name?: Name }>,
  ) => Optimizer;
} = {
  adamw,
  adamw8,
  adamw4,
  collage: (backend, parameters, options) => new Collage(backend, parameters, options),
  muon,
};

/** The optimizer that a recipe asks for, on these parameters. */
export function openOptimizer(
  backend: Backend,
  parameters: readonly Parameter[],
  options: OptimizerOptions,
): Optimizer {
  const open = optimizers[options.name ?? "adamw"] as (
    backend: Backend,
    parameters: readonly Parameter[],
    options: OptimizerOptions,
  ) => Optimizer;
  return open(backend, parameters, options);
}
