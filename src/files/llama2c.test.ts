import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { shared } from "../../test/shared.ts";
import { onlyPart } from "../tensor/weight.ts";
import type { TensorSource } from "./file.ts";
import { openLlama2c } from "./llama2c.ts";
import { memorySource } from "./memory.ts";

const open = (path: string) => openLlama2c(memorySource(readFileSync(path), path.split("/").at(-1)));

async function floats(source: TensorSource, name: string): Promise<Float32Array> {
  const { bytes } = onlyPart(await source.read(name)).parts.data;
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** A legacy checkpoint of dim 4, one layer, two heads, one kv head, hidden 3, vocabulary 2, context 2; float i of the file is i. */
function tiny(vocabulary: number): Uint8Array {
  const sizes = [8, 4, 16, 8, 8, 16, 4, 12, 12, 12, 4, 2, 2, vocabulary < 0 ? 8 : 0];
  const count = sizes.reduce((sum, size) => sum + size, 0);
  const header = Int32Array.of(4, 3, 1, 2, 1, vocabulary, 2);
  const data = Float32Array.from({ length: count }, (_, i) => i);
  return Uint8Array.from([...new Uint8Array(header.buffer), ...new Uint8Array(data.buffer)]);
}

test("legacy: every tensor's place, by hand", async () => {
  const { source, config, container } = await openLlama2c(memorySource(tiny(2)));
  expect(container).toBe("llama2.c legacy");
  const first = async (name: string) => (await floats(source, name))[0];
  expect(await first("model.embed_tokens.weight")).toBe(0);
  expect(await first("model.layers.0.input_layernorm.weight")).toBe(8);
  expect(await first("model.layers.0.self_attn.q_proj.weight")).toBe(12);
  expect(await first("model.layers.0.self_attn.k_proj.weight")).toBe(28);
  expect(await first("model.layers.0.self_attn.v_proj.weight")).toBe(36);
  expect(await first("model.layers.0.self_attn.o_proj.weight")).toBe(44);
  expect(await first("model.layers.0.post_attention_layernorm.weight")).toBe(60);
  expect(await first("model.layers.0.mlp.gate_proj.weight")).toBe(64);
  expect(await first("model.layers.0.mlp.down_proj.weight")).toBe(76);
  expect(await first("model.layers.0.mlp.up_proj.weight")).toBe(88);
  expect(await first("model.norm.weight")).toBe(100);
  expect(source.names).toHaveLength(11);
  expect(source.shape("model.layers.0.self_attn.k_proj.weight")).toEqual([2, 4]);
  expect(source.shape("model.layers.0.mlp.down_proj.weight")).toEqual([4, 3]);
  expect(config).toMatchObject({
    model_type: "llama",
    hidden_size: 4,
    intermediate_size: 3,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    vocab_size: 2,
    max_position_embeddings: 2,
    rope_pairing: "neighbours",
    tie_word_embeddings: true,
  });
});

test("legacy: a negative vocabulary means an output matrix after the RoPE tables", async () => {
  const { source, config } = await openLlama2c(memorySource(tiny(-2)));
  expect(config).toMatchObject({ vocab_size: 2, tie_word_embeddings: false });
  expect(await floats(source, "lm_head.weight")).toEqual(Float32Array.from({ length: 8 }, (_, i) => 108 + i));
});

test("version 2: int8 groups run over the flattened matrix, also across rows", async () => {
  // dim 4, hidden 6, groups of 8: two rows of a (…, 4) matrix share a scale, w2 (4, 6) has groups across rows.
  const header = new Uint8Array(256);
  const view = new DataView(header.buffer);
  for (const [i, n] of [0x616b3432, 2, 4, 6, 1, 2, 2, 2, 2].entries()) view.setInt32(4 * i, n, true);
  view.setUint8(36, 1);
  view.setInt32(37, 8, true);
  const norms = new Float32Array(12).fill(1);
  const matrices = [8, 16, 16, 16, 16, 24, 24, 24].map((size, m) => {
    const q = Int8Array.from({ length: size }, (_, i) => i - 8);
    const scales = Float32Array.from({ length: size / 8 }, (_, g) => 2 ** (g - m));
    return [...new Uint8Array(q.buffer), ...new Uint8Array(scales.buffer)];
  });
  const { source, container } = await openLlama2c(
    memorySource(Uint8Array.from([...header, ...new Uint8Array(norms.buffer), ...matrices.flat()])),
  );
  expect(container).toBe("llama2.c version 2, int8 in groups of 8, decoded to f32 when read");
  const down = "model.layers.0.mlp.down_proj.weight"; // matrix 6 in the file
  expect(source.shape(down)).toEqual([4, 6]);
  expect(source.bytes(down)).toBe(24 + 4 * 3);
  expect(await floats(source, down)).toEqual(
    Float32Array.from({ length: 24 }, (_, i) => (i - 8) * 2 ** (Math.floor(i / 8) - 6)),
  );
});

const stories = shared("stories260k");
test.skipIf(!existsSync(stories))(
  "stories260K: version 1 is the legacy file bit for bit, int8 within half a step",
  async () => {
    const legacy = await open(`${stories}/stories260K.bin`);
    const v1 = await open(`${stories}/checkpoint_v1.bin`);
    const q8 = await open(`${stories}/stories260K-q8.bin`);
    expect(v1.config).toEqual(legacy.config);
    expect(q8.config).toEqual(legacy.config);
    expect(new Set(v1.source.names)).toEqual(new Set(legacy.source.names));
    let count = 0;
    for (const name of legacy.source.names) {
      const w = await floats(legacy.source, name);
      expect(await floats(v1.source, name)).toEqual(w);
      const quantized = await floats(q8.source, name);
      // q = round(w/s), s = max|w|/127: off by s/2 at most, and by the roundings of s and of the product.
      let worst = 0;
      for (let g = 0; g < w.length; g += 8) {
        const largest = Math.max(...w.subarray(g, g + 8).map(Math.abs));
        for (let i = g; i < g + 8; i++)
          worst = Math.max(worst, (Math.abs(quantized[i] - w[i]) * 254) / largest);
      }
      expect(worst).toBeLessThanOrEqual(1 + 2 ** -16);
      count += w.length;
    }
    expect(count).toBe(260032);
  },
);

const samples = shared("format-samples");
test.skipIf(!existsSync(samples))("files of another writer, with and without an output matrix", async () => {
  const tied = await open(`${samples}/nutllm_tiny-llama2-shared.bin`);
  const untied = await open(`${samples}/nutllm_tiny-llama2.bin`);
  expect([tied.source.names.length, untied.source.names.length]).toEqual([20, 21]);
  expect(untied.source.shape("lm_head.weight")).toEqual([6, 4]);
});
