import { gguf } from "./gguf.ts";
import { hfFolder } from "./hf-folder.ts";
import { llama2c } from "./llama2c.ts";
import { safetensors } from "./safetensors.ts";
import type { Target } from "./target.ts";
import { sentencepiece, tokBin, tokenizerJson } from "./vocabularies.ts";

/** Every reader of strangers' files, by name. */
export const targets: ReadonlyMap<string, Target> = new Map(
  [safetensors, hfFolder, llama2c, sentencepiece, tokBin, tokenizerJson, gguf].map((target) => [
    target.name,
    target,
  ]),
);
