import { InputError } from "../tensor/tensor.ts";
import type { TensorSource } from "./file.ts";

/**
 * Throws an InputError unless the source holds every tensor that the
 * architecture asks for, in its shape. Needs no data.
 */
export function checkTensors(
  model: string,
  source: TensorSource,
  specs: Iterable<{ readonly name: string; readonly shape: readonly number[] }>,
): void {
  for (const { name, shape } of specs) {
    if (!source.has(name))
      throw new InputError(`${model}: tensor ${name} is missing; its config asks for it`);
    const met = source.shape(name);
    if (met.join() !== shape.join()) {
      throw new InputError(
        `${model}: tensor ${name} must have shape ${shape.join("×")} by its config, has ${met.join("×")}`,
      );
    }
  }
}

/** Throws an InputError when the model can produce ids that the tokenizer does not have. */
export function checkVocabulary(
  model: string,
  vocabulary: number,
  tokenizer: { readonly vocabulary: number },
): void {
  if (vocabulary > tokenizer.vocabulary) {
    throw new InputError(
      `${model}: its vocabulary of ${vocabulary} is larger than the tokenizer's ${tokenizer.vocabulary}; give the tokenizer that belongs to it`,
    );
  }
}
