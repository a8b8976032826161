import { decodeWeight } from "../formats/index.ts";
import { type HostTensor, hostTensor } from "../tensor/tensor.ts";
import { bitsByUse, type Weight } from "../tensor/weight.ts";

/** A matrix for many passes: as it is stored, unless each of them would have a decoder draw it anew. */
export function drawnOnce(weight: Weight): HostTensor | Weight {
  return bitsByUse(weight).decoder ? hostTensor(weight.shape, decodeWeight(weight).data) : weight;
}
