import { InputError } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { ModelFile, TensorSource } from "./file.ts";
import { isObject } from "./json.ts";

/**
 * Key of a config.json: the folder holds what a model has beyond a base.
 *
 *   "lowbit_delta": { "base": "bundled:float", "sha256": "4f…", "added": [NAME, …] }
 *
 * `base` is what the base was called and `sha256` its fingerprint. Matrices of `added` are added to the base's; every
 * other tensor of the folder takes the place of the base's, and those that it has not are the base's own.
 */
export const DELTA_KEY = "lowbit_delta";

export interface DeltaHead {
  readonly base: string;
  readonly sha256: string;
  readonly added: ReadonlySet<string>;
}

/** `BASE+DELTA` in two; undefined for other names. */
export function splitDelta(spec: string): { base: string; delta: string } | undefined {
  const [, base, delta] = /^(.+)\+([^+]+)$/.exec(spec) ?? [];
  return base === undefined ? undefined : { base, delta };
}

/** What a delta's config says; undefined for a whole model. An InputError when it is damaged. */
export function deltaHead({ config }: ModelFile): DeltaHead | undefined {
  const head = config[DELTA_KEY];
  if (head === undefined) return undefined;
  const { base, sha256, added } = isObject(head) ? head : {};
  const isName = (name: unknown) => typeof name === "string";
  if (
    typeof base !== "string" ||
    typeof sha256 !== "string" ||
    !Array.isArray(added) ||
    !added.every(isName)
  ) {
    throw new InputError(
      `config.json: ${DELTA_KEY} needs the base's name, its sha256 and a list of what is added`,
    );
  }
  return { base, sha256, added: new Set(added as string[]) };
}

/** The head of a delta. An InputError when the file is none, or one over another base than this. */
export async function headOver(delta: ModelFile, base: ModelFile): Promise<DeltaHead> {
  const head = deltaHead(delta);
  if (!head) {
    throw new InputError(
      `${delta.name}: is a whole model, not a delta; lowbit delta makes one of it and its base`,
    );
  }
  const { sha256 } = await base.fingerprint();
  if (sha256 !== head.sha256) {
    throw new InputError(
      `${delta.name}: is a delta over ${head.base} with SHA-256 ${head.sha256.slice(0, 12)}…, ${base.name} has ${sha256.slice(0, 12)}…; give the model that it was made from`,
    );
  }
  return head;
}

/** Base and delta as the model that they are together; closing it closes both. */
export async function overBase(base: ModelFile, delta: ModelFile): Promise<ModelFile> {
  const { added } = await headOver(delta, base);
  const { [DELTA_KEY]: _, quantization_config: __, ...config } = delta.config;
  return {
    name: `${base.name}+${delta.name}`,
    bytes: base.bytes + delta.bytes,
    config,
    generation: delta.generation ?? base.generation,
    source: sumSource(base.source, delta.source, added),
    tokenizer: delta.tokenizer ?? base.tokenizer,
    tokenizerFiles: () => (delta.tokenizer ? delta : base).tokenizerFiles(),
    container: `${base.container}, with a delta of ${delta.bytes} bytes`,
    record: delta.record,
    fingerprint: async () => {
      const prints = [await base.fingerprint(), await delta.fingerprint()];
      const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
      return {
        bytes: prints[0].bytes + prints[1].bytes,
        sha256: hash.update(prints.map(({ sha256 }) => sha256).join("+")).digest("hex"),
      };
    },
    close: async () => {
      await base.close();
      await delta.close();
    },
  };
}

function sumSource(base: TensorSource, delta: TensorSource, added: ReadonlySet<string>): TensorSource {
  for (const name of added) {
    const [own, its] = [base, delta].map((source) =>
      source.has(name) ? source.shape(name).join("×") : "none",
    );
    if (own === "none" || own !== its) {
      throw new InputError(`delta: ${name} to be added is ${its}, the base's is ${own}`);
    }
  }
  /** Who has a tensor, the delta first. */
  const owner = (name: string) => (delta.has(name) ? delta : base);
  return {
    names: [...new Set([...base.names, ...delta.names])],
    has: (name) => owner(name).has(name),
    shape: (name) => owner(name).shape(name),
    format: (name) =>
      added.has(name) ? `sum(${base.format(name)}, ${delta.format(name)})` : owner(name).format(name),
    bytes: (name) => owner(name).bytes(name) + (added.has(name) ? base.bytes(name) : 0),
    async read(name) {
      const weight = await owner(name).read(name);
      return added.has(name) ? sum(await base.read(name), weight) : weight;
    },
    close: async () => {
      await base.close();
      await delta.close();
    },
  };
}

function sum(a: Weight, b: Weight): Weight {
  return { shape: a.shape, expression: { kind: "sum", terms: [a, b] } };
}
