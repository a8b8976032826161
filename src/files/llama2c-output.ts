import { InputError, UnsupportedError } from "../tensor/tensor.ts";
import { ggufVocabulary, sentencePieceOf } from "../tokenizers/index.ts";
import type { TokenizerData } from "../tokenizers/tokenizer.ts";
import { stageFile, writeFileAtomic } from "./disk.ts";
import { bytesOf, type Header, layOut } from "./llama2c.ts";
import { type Convertible, type ModelOutput, needPlain } from "./output.ts";
import { tokBinBytes } from "./write-sentencepiece.ts";

/** What run.c takes for granted, as the file does not say it. */
const NORM_EPSILON = 1e-5;
const ROPE_BASE = 10000;

/**
 * Begins a legacy llama2.c checkpoint, which every version of run.c reads; the layout is in `llama2c.ts`. Its tokenizer
 * stands beside it, `NAME.tokenizer.bin` for `NAME.bin`, where it can be written in that form. Throws an InputError
 * for a model that the file cannot describe.
 */
export async function llama2cOutput(
  path: string,
  { file, sizes, tensors }: Convertible,
  { type }: { readonly type?: string },
): Promise<ModelOutput> {
  if (type !== undefined && type !== "f32")
    throw new InputError(`convert: llama2.c checkpoints are written in f32, not in ${type}`);
  const { dim, heads, headDim, context, normEpsilon, ropeBase } = sizes;
  needPlain("llama2.c", sizes);
  const cannot = (what: string) => new InputError(`convert: llama2.c cannot hold this model: ${what}`);
  if (headDim * heads !== dim) throw cannot(`${heads} heads of ${headDim} must make up its width of ${dim}`);
  if (Math.fround(normEpsilon) !== Math.fround(NORM_EPSILON))
    throw cannot(`its norms have ε ${normEpsilon}, run.c has ${NORM_EPSILON}`);
  if (ropeBase !== ROPE_BASE) throw cannot(`its rotary base is ${ropeBase}, run.c has ${ROPE_BASE}`);

  const header: Header = {
    version: "legacy",
    dim,
    hidden: sizes.ffn,
    layers: sizes.layers,
    heads,
    kvHeads: sizes.kvHeads,
    vocabulary: sizes.vocabulary,
    context,
    sharedHead: sizes.tiedHead,
    group: 0,
  };
  const places = new Map<string, { at: number; left: number }>();
  for (const [name, { from, bytes }] of layOut(header)) places.set(name, { at: from, left: bytes });
  const warnings: string[] = [];
  const tokenizer = tokenizerBytes(file.tokenizer, sizes.vocabulary, (why) =>
    warnings.push(`${file.name}: ${why}; the checkpoint has no tokenizer beside it`),
  );

  const staged = await stageFile(path);
  let over = false;
  const discard = async () => {
    if (!over) await staged.discard();
    over = true;
  };
  try {
    const vocabulary = header.sharedHead ? header.vocabulary : -header.vocabulary;
    const numbers = [dim, header.hidden, header.layers, heads, header.kvHeads, vocabulary, context];
    await staged.write(new Uint8Array(Int32Array.from(numbers).buffer), 0);
    const norm = places.get("model.norm.weight")!;
    await writeRopeTables(staged, norm.at + norm.left, context, headDim);
  } catch (error) {
    await discard();
    throw error;
  }
  return {
    container: "llama2.c legacy",
    pairing: "neighbours",
    tensors: tensors.map(({ name }) => ({ name, format: "f32" })),
    bytes: bytesOf(header),
    warnings,
    async write(name, { data }) {
      const place = places.get(name);
      if (place === undefined || place.left < data.bytes.byteLength)
        throw new Error(`llama2cOutput: ${data.bytes.byteLength} bytes too many for tensor ${name}`);
      await staged.write(data.bytes, place.at);
      place.at += data.bytes.byteLength;
      place.left -= data.bytes.byteLength;
    },
    async finish() {
      for (const [name, { left }] of places)
        if (left > 0) throw new Error(`llama2cOutput: ${left} bytes of tensor ${name} were not written`);
      if (tokenizer) await writeFileAtomic(tokenizerBeside(path), tokenizer);
      await staged.commit();
      over = true;
      return tokenizer ? [path, tokenizerBeside(path)] : [path];
    },
    discard,
  };
}

/** Where the tokenizer of a checkpoint stands. */
export function tokenizerBeside(path: string): string {
  return `${path.replace(/\.bin$/, "")}.tokenizer.bin`;
}

/** The tokenizer as tok.bin; undefined, with the reason, where that form cannot hold it. */
function tokenizerBytes(
  data: TokenizerData | undefined,
  vocabulary: number,
  onReason: (why: string) => void,
): Uint8Array | undefined {
  try {
    if (data === undefined) throw new InputError("comes without a tokenizer");
    const model = data.kind === "sentencepiece" ? data : sentencePieceOf(ggufVocabulary(data));
    if (model.pieces.length !== vocabulary) {
      throw new InputError(`its tokenizer has ${model.pieces.length} tokens for ${vocabulary} rows`);
    }
    return tokBinBytes(model);
  } catch (error) {
    if (!(error instanceof InputError || error instanceof UnsupportedError)) throw error;
    onReason(error.message);
    return undefined;
  }
}

/** Cosines, then sines, of position·base^(−2i/headDim), (context, headDim/2) each: old versions of run.c read them. */
async function writeRopeTables(
  file: { write(bytes: Uint8Array, at: number): Promise<void> },
  at: number,
  context: number,
  headDim: number,
): Promise<void> {
  const half = headDim / 2;
  for (const [t, turn] of [Math.cos, Math.sin].entries()) {
    const table = new Float32Array(context * half);
    for (let p = 0; p < context; p++) {
      for (let i = 0; i < half; i++) table[p * half + i] = turn(p * ROPE_BASE ** ((-2 * i) / headDim));
    }
    await file.write(new Uint8Array(table.buffer), at + t * table.byteLength);
  }
}
