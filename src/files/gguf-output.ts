import { type GgmlType, ggmlTypeByName } from "../formats/ggml.ts";
import { InputError, sizeOf } from "../tensor/tensor.ts";
import { ggufVocabulary } from "../tokenizers/index.ts";
import { DEFAULT_ALIGNMENT, RECORD_KEY } from "./gguf.ts";
import { ggufName, llamaEntries } from "./gguf-llama.ts";
import { fittedVocabulary, vocabularyEntries } from "./gguf-tokenizer.ts";
import { type Convertible, type ModelOutput, type NeededTensor, needPlain } from "./output.ts";
import { equalType } from "./recode.ts";
import { type GgufEntry, ggufWriter } from "./write-gguf.ts";

/** What becomes of a tensor in a GGUF file. */
interface GgufPlan {
  readonly name: string;
  /** Its name in the file. */
  readonly gguf: string;
  readonly shape: readonly number[];
  readonly type: GgmlType;
  readonly note?: string;
}

/** Types by the number that `general.file_type` has for a file that mostly holds them (llama.h, enum llama_ftype). */
const FILE_TYPES: Readonly<Record<string, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  q2_k: 10,
  q3_k: 11,
  q4_k: 14,
  q5_k: 16,
  q6_k: 18,
  iq4_nl: 25,
  bf16: 32,
  tq1_0: 36,
  tq2_0: 37,
};

/** Types that a file can be written in. */
const GGUF_TYPES: readonly string[] = Object.keys(FILE_TYPES);

/** What llama.cpp's quantizer takes where rows are not whole blocks (llama-quant.cpp, tensor_type_fallback). */
const FALLBACK: Readonly<Record<string, string>> = {
  q2_k: "q4_0",
  q3_k: "q4_0",
  tq1_0: "q4_0",
  tq2_0: "q4_0",
  q4_k: "q5_0",
  q5_k: "q5_1",
  q6_k: "q8_0",
};

/**
 * The type of each tensor. Without `asked`, what ggml has stays as it is, our integers become the ggml type that
 * has all their levels, and the rest becomes f16. With it, as llama.cpp's quantizer does for a whole model, without its mixes of types (q4_k is Q4_K_S): norms
 * in f32, the output matrix (or an embedding that is one) at least in q6_k, the embedding beside
 * ternary layers in q4_k, and a type of smaller blocks where rows are not whole blocks, f16 at last.
 */
export function planGguf(tensors: readonly NeededTensor[], asked?: string): GgufPlan[] {
  if (asked !== undefined && !GGUF_TYPES.includes(asked))
    throw new InputError(
      `convert: GGUF type ${JSON.stringify(asked)} is not written; there are ${GGUF_TYPES.join(", ")}`,
    );
  const tied = !tensors.some(({ role }) => role === "head");
  return tensors.map((tensor) => {
    const { name, shape, role, format: from } = tensor;
    const plan = (type: string, note?: string): GgufPlan => ({
      name,
      gguf: ggufName(name),
      shape,
      type: ggmlTypeByName(type)!,
      ...(note === undefined ? {} : { note }),
    });
    if (role === "norm") return plan("f32");
    if (asked === undefined) return plan(...keptType(from, shape));
    if (Object.hasOwn(FLOATS, asked)) return plan(asked);
    const output = role === "head" || (role === "embedding" && tied);
    const wanted = output ? outputType(asked, shape) : role === "embedding" ? embeddingType(asked) : asked;
    const type = fitting(wanted, shape);
    const why =
      type === wanted ? "as llama.cpp does" : `rows of ${shape.at(-1)} are not whole blocks of ${wanted}`;
    return plan(type, type === asked ? undefined : why);
  });
}

const FLOATS = { f32: true, f16: true, bf16: true };

function keptType(from: string, shape: readonly number[]): [type: string, note?: string] {
  const type = ggmlTypeByName(from);
  if (type?.reading.kind === "format") return [from];
  const equal = equalType(from, shape);
  return equal === undefined ? ["f16", `ggml has no ${from}`] : [equal];
}

function outputType(asked: string, shape: readonly number[]): string {
  if (!isWhole(asked, shape)) return "q8_0";
  return asked === "q8_0" ? asked : "q6_k";
}

function embeddingType(asked: string): string {
  return asked === "tq1_0" || asked === "tq2_0" ? "q4_k" : asked;
}

function fitting(type: string, shape: readonly number[]): string {
  if (isWhole(type, shape)) return type;
  const smaller = FALLBACK[type] ?? type;
  return isWhole(smaller, shape) ? smaller : "f16";
}

function isWhole(type: string, shape: readonly number[]): boolean {
  return (shape.at(-1) ?? 1) % ggmlTypeByName(type)!.weights === 0;
}

/** `general.file_type` of a model whose linear layers mostly have this type. */
function fileType(plans: readonly GgufPlan[]): number {
  const weights = new Map<string, number>();
  for (const { shape, type, gguf } of plans) {
    if (gguf.startsWith("blk.")) weights.set(type.name, (weights.get(type.name) ?? 0) + sizeOf(shape));
  }
  const [most] = [...weights].sort((a, b) => b[1] - a[1])[0] ?? ["f32"];
  return FILE_TYPES[most] ?? FILE_TYPES.f32;
}

/** GGML_QNT_VERSION of ggml.h: how blocks are laid out since May 2023. */
const QUANTIZATION_VERSION = 2;
/** A record grows by the digits of its times, and by `false` for `true`, until it is done. */
const RECORD_SLACK = 1024;

/** How a GGUF file of a model is made. */
interface Options {
  readonly type?: string;
  readonly name: string;
  /** What the record will be like; its final form goes into the metadata when all is done. */
  record(planned: Pick<ModelOutput, "tensors" | "container">): object;
}

/** Begins a GGUF file of a model, with its tokenizer and our record. */
export async function ggufOutput(
  path: string,
  { file, sizes, tensors }: Convertible,
  { type, name, record }: Options,
): Promise<ModelOutput> {
  needPlain("GGUF", sizes);
  const plans = planGguf(tensors, type);
  const warnings: string[] = [];
  const entries: GgufEntry[] = [
    ["general.architecture", "string", "llama"],
    ["general.name", "string", name],
    ["general.file_type", "u32", fileType(plans)],
    ["general.quantization_version", "u32", QUANTIZATION_VERSION],
    ["general.alignment", "u32", DEFAULT_ALIGNMENT],
    ...llamaEntries(sizes),
  ];
  if (file.tokenizer === undefined) {
    warnings.push(
      `${file.name}: comes without a tokenizer, and so will the GGUF file; give one with --tokenizer`,
    );
    entries.push(["tokenizer.ggml.model", "string", "none"]);
  } else {
    const vocabulary = ggufVocabulary(file.tokenizer);
    const fitted = fittedVocabulary(vocabulary, sizes.vocabulary);
    if (fitted !== vocabulary) {
      warnings.push(
        `${file.name}: its tokenizer has ${vocabulary.tokens.length} tokens, the model ${sizes.vocabulary}; the file has as many as the model`,
      );
    }
    entries.push(...vocabularyEntries(fitted));
  }
  const places = new Map(plans.map((plan) => [plan.name, plan]));
  const planned = {
    container: "GGUF version 3",
    tensors: plans.map(({ name, type, note }) => ({ name, format: type.name, ...(note && { note }) })),
  };
  const room = new TextEncoder().encode(JSON.stringify(record(planned))).byteLength + RECORD_SLACK;
  const writer = await ggufWriter(
    path,
    entries,
    plans.map((plan) => ({ name: plan.gguf, shape: plan.shape, type: plan.type })),
    { key: RECORD_KEY, bytes: room },
  );
  return {
    ...planned,
    pairing: "neighbours",
    bytes: writer.bytes,
    warnings,
    write: (name, parts) => writer.write(places.get(name)!.gguf, Object.values(parts)[0].bytes),
    async finish(record) {
      await writer.finish(JSON.stringify(record));
      return [path];
    },
    discard: () => writer.discard(),
  };
}
