import { type Operations, operationsOver } from "./index.ts";

/**
 * The same operations, whose products of float32 matrices may round their operands to BF16 and add up in float32: those
 * of `linear` and `crossEntropy`, forward and backward. Where a backend cannot, or a weight is packed, nothing changes.
 * Of a tape it gives operations that the tape remembers as before.
 */
export function bf16Operations(ops: Operations): Operations {
  const run = ops as Record<string, (...args: readonly unknown[]) => ReturnType<Operations["add"]>>;
  return {
    ...operationsOver((name, args) => run[name](...args)),
    linear: (x, w) => ops.linear(x, w, 1),
    crossEntropy: (x, w, targets) => ops.crossEntropy(x, w, targets, 1),
  };
}
