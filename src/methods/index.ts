import { nearestName } from "../tensor/nearest-name.ts";
import { InputError } from "../tensor/tensor.ts";
import { aqlm } from "./aqlm.ts";
import { bilm } from "./bilm.ts";
import { bitdelta } from "./bitdelta.ts";
import { bitnet } from "./bitnet.ts";
import { bitnetA48 } from "./bitnet-a4.8.ts";
import { bitnetB158 } from "./bitnet-b1.58.ts";
import { bitnetB158Median } from "./bitnet-b1.58-median.ts";
import { bitstack } from "./bitstack.ts";
import { continual } from "./continual.ts";
import { deltaCome } from "./delta-come.ts";
import { doubleRounding } from "./double-rounding.ts";
import { fbi } from "./fbi.ts";
import { frozenTernary } from "./frozen-ternary.ts";
import { gptq } from "./gptq.ts";
import { int21 } from "./int2.1.ts";
import { llmQat } from "./llm-qat.ts";
import { loftq } from "./loftq.ts";
import { lorc } from "./lorc.ts";
import { lplr } from "./lplr.ts";
import { lqLora } from "./lq-lora.ts";
import { lr2vq } from "./lr2vq.ts";
import { matquant } from "./matquant.ts";
import type { Decomposition, Rounding, TrainedMethod, TunedMethod } from "./method.ts";
import { onebit, onebitStart } from "./onebit.ts";
import { paretoq } from "./paretoq.ts";
import { qlora, qloraBase } from "./qlora.ts";
import { qtip } from "./qtip.ts";
import { quipSharp } from "./quip-sharp.ts";
import { reallm } from "./reallm.ts";
import { rtn } from "./rtn.ts";
import { sqft, sqftMerge } from "./sqft.ts";
import { trilm, trilmRounding } from "./trilm.ts";
import { vptq } from "./vptq.ts";

/** Methods that round a model that exists, by name. */
export const roundings = { rtn, gptq, trilm: trilmRounding } as const;

/** Methods that round while they train, by name. */
export const trainedMethods = {
  trilm,
  bilm,
  "bitnet-b1.58-median": bitnetB158Median,
  onebit,
  fbi,
  paretoq,
  matquant,
  "double-rounding": doubleRounding,
  continual,
  "frozen-ternary": frozenTernary,
  bitnet,
  "bitnet-b1.58": bitnetB158,
  "bitnet-a4.8": bitnetA48,
  "llm-qat": llmQat,
} as const satisfies { [name: string]: TrainedMethod };

/** Methods that train something of a model that is stored already, by name. */
export const tunedMethods = { qlora, sqft } as const satisfies { [name: string]: TunedMethod };

/** Methods that put a matrix together from several parts, by name. */
export const decompositions = {
  aqlm,
  vptq,
  lr2vq,
  reallm,
  qtip,
  "quip#": quipSharp,
  onebit: onebitStart,
  bitstack,
  lorc,
  loftq,
  "lq-lora": lqLora,
  lplr,
  "int2.1": int21,
  qlora: qloraBase,
  sqft: sqftMerge,
  bitdelta,
  "delta-come": deltaCome,
} as const;

/** Names of the methods that make a finished model smaller. */
export const compressions = [...Object.keys(roundings), ...Object.keys(decompositions)];

/** A method that makes a finished model smaller, by its name; an InputError suggests the nearest one. */
export function compressionByName(name: string): Rounding | Decomposition<object> {
  const all: Readonly<Record<string, Rounding | Decomposition<object>>> = { ...roundings, ...decompositions };
  if (Object.hasOwn(all, name)) return all[name];
  throw new InputError(
    `method: none is called ${JSON.stringify(name)}; did you mean ${nearestName(name, compressions)}? There are ${compressions.join(", ")}`,
  );
}
