import { nearestName } from "../tensor/nearest-name.ts";
import { InputError } from "../tensor/tensor.ts";
import { gptq } from "./gptq.ts";
import type { Rounding, TrainedMethod } from "./method.ts";
import { rtn } from "./rtn.ts";
import { trilm, trilmRounding } from "./trilm.ts";

/** Methods that round a model that exists, by name. */
export const roundings = { rtn, gptq, trilm: trilmRounding } as const;

/** Methods that round while they train, by name. */
export const trainedMethods = { trilm } as const satisfies { [name: string]: TrainedMethod };

export type RoundingName = keyof typeof roundings;

/** A rounding by its name; an InputError suggests the nearest one. */
export function roundingByName(name: string): Rounding {
  if (Object.hasOwn(roundings, name)) return roundings[name as RoundingName];
  const known = Object.keys(roundings);
  throw new InputError(
    `method: none is called ${JSON.stringify(name)}; did you mean ${nearestName(name, known)}? There are ${known.join(", ")}`,
  );
}
