import { partOf, storeF16 } from "../formats/format.ts";
import type { HostTensor } from "../tensor/tensor.ts";
import type { Part } from "../tensor/weight.ts";

/** A trained vector as a part of 16-bit floats; an InputError names the method when a number is too large. */
export function halfPart(method: string, { data }: HostTensor): Part {
  const stored = Float16Array.from(data as Float32Array, (x) => storeF16(method, "trained number", x));
  return partOf("f16", [data.length], stored);
}
