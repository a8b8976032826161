import { describe, expect, test } from "vitest";
import { planGguf } from "./gguf-output.ts";
import { fittedVocabulary } from "./gguf-tokenizer.ts";
import type { NeededTensor } from "./output.ts";

/** A model of width `dim` and inner width `ffn`, all matrices in one format. */
function tensors(dim: number, ffn: number, format: string, tied = false): NeededTensor[] {
  const layer = (name: string, shape: number[]) =>
    ({ name: `model.layers.0.${name}.weight`, shape, role: "linear", format }) as const;
  return [
    { name: "model.embed_tokens.weight", shape: [100, dim], role: "embedding", format },
    { name: "model.layers.0.input_layernorm.weight", shape: [dim], role: "norm", format: "f16" },
    layer("mlp.up_proj", [ffn, dim]),
    layer("mlp.down_proj", [dim, ffn]),
    ...(tied ? [] : [{ name: "lm_head.weight", shape: [100, dim], role: "head", format } as const]),
  ];
}

/** Types of embedding, norm, up, down and head. */
const types = (needed: NeededTensor[], asked?: string) =>
  planGguf(needed, asked).map(({ type }) => type.name);

describe("types without being asked", () => {
  test("what ggml has stays; norms are f32", () => {
    for (const format of ["f32", "bf16", "q4_0", "tq2_0", "q6_k"])
      expect(types(tensors(256, 512, format))).toEqual([format, "f32", format, format, format]);
  });
  test("our integers become what has all their levels; the rest f16, and it is said", () => {
    const becomes = (format: string, dim = 256) => types(tensors(dim, dim, format))[2];
    expect(["int8-g32", "int8", "int6-g64"].map((name) => becomes(name))).toEqual(["q8_0", "q8_0", "q8_0"]);
    expect(["int4-g32", "int3", "int2-g128"].map((name) => becomes(name))).toEqual(["q4_0", "q4_0", "q4_0"]);
    expect(["int4-offset-g32", "int2-offset"].map((name) => becomes(name))).toEqual(["q4_1", "q4_1"]);
    expect(["int8-offset", "int6-offset-g32", "sum(f32, f16)"].map((name) => becomes(name))).toEqual([
      "f16",
      "f16",
      "f16",
    ]);
    expect(becomes("int4", 172)).toBe("f16");
    expect(planGguf(tensors(256, 256, "int8-offset"))[2].note).toBe("ggml has no int8-offset");
  });
});

describe("a type for the whole model, by llama.cpp's rules", () => {
  test("the output matrix is q6_k at least, an embedding that is one too", () => {
    expect(types(tensors(256, 512, "f32"), "q4_0")).toEqual(["q4_0", "f32", "q4_0", "q4_0", "q6_k"]);
    expect(types(tensors(256, 512, "f32"), "q8_0")).toEqual(["q8_0", "f32", "q8_0", "q8_0", "q8_0"]);
    expect(types(tensors(256, 512, "f32", true), "q4_k")).toEqual(["q6_k", "f32", "q4_k", "q4_k"]);
  });
  test("beside ternary layers the embedding is q4_k", () => {
    expect(types(tensors(256, 512, "f32"), "tq2_0")).toEqual(["q4_k", "f32", "tq2_0", "tq2_0", "q6_k"]);
  });
  test("rows that are not whole blocks take smaller blocks, f16 at last", () => {
    // stories260K: 64 wide, 172 inside
    expect(types(tensors(64, 172, "f32", true), "q4_k")).toEqual(["q8_0", "f32", "q5_0", "f16"]);
    expect(types(tensors(64, 172, "f32", true), "tq1_0")).toEqual(["q8_0", "f32", "q4_0", "f16"]);
    expect(types(tensors(96, 96, "f32"), "q6_k")).toEqual(["q8_0", "f32", "q8_0", "q8_0", "q8_0"]);
    const [, , , down] = planGguf(tensors(64, 172, "f32", true), "q4_0");
    expect(down.note).toBe("rows of 172 are not whole blocks of q4_0");
  });
  test("floats for all", () => {
    expect(types(tensors(64, 172, "int4-g32"), "bf16")).toEqual(["bf16", "f32", "bf16", "bf16", "bf16"]);
  });
  test("a type that is not written", () => {
    expect(() => planGguf([], "iq2_xs")).toThrow(
      /convert: GGUF type "iq2_xs" is not written; there are f32, f16/,
    );
  });
});

test("a vocabulary of as many tokens as the model has rows", () => {
  const vocabulary = {
    kind: "gguf",
    model: "gpt2",
    tokens: ["a", "b", "ab", "abb"],
    types: Uint8Array.of(1, 1, 1, 1),
    merges: ["a b", "ab b"],
    bos: 3,
    eos: 0,
  } as const;
  expect(fittedVocabulary(vocabulary, 4)).toBe(vocabulary);
  expect(fittedVocabulary(vocabulary, 3)).toMatchObject({
    tokens: ["a", "b", "ab"],
    merges: ["a b"],
    bos: undefined,
    eos: 0,
  });
  expect(fittedVocabulary(vocabulary, 6)).toMatchObject({
    tokens: ["a", "b", "ab", "abb", "[PAD4]", "[PAD5]"],
    types: Uint8Array.of(1, 1, 1, 1, 5, 5),
  });
});
