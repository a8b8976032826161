import { normals, type Random } from "../tensor/random.ts";
import { type HostTensor, hostTensor, sizeOf } from "../tensor/tensor.ts";
import type { Model } from "./model.ts";

/**
 * Weights to start training from, in the model's tensor order: norms 1,
 * matrices normal with deviation `deviation`, those that write into the
 * residual stream (o and down) divided by √(2·layers).
 *
 * Radford et al., 2019 (GPT-2), section 2.3.
 */
export function* initialize(
  model: Model,
  random: Random,
  deviation = 0.02,
): Generator<[name: string, value: HostTensor]> {
  const residual = deviation / Math.sqrt(2 * model.config.layers);
  for (const { name, shape, role } of model.tensors) {
    const size = sizeOf(shape);
    const writesResidual = name.endsWith("o_proj.weight") || name.endsWith("down_proj.weight");
    const data =
      role === "norm"
        ? new Float32Array(size).fill(1)
        : normals(random, size, writesResidual ? residual : deviation);
    yield [name, hostTensor(shape, data)];
  }
}
