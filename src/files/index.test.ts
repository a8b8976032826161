import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterEach, beforeEach, expect, test } from "vitest";
import { shared } from "../../test/shared.ts";
import { openModel, openTokenizer, writeModel } from "./index.ts";
import { tokenizerFilesFrom } from "./tokenizer-files.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const stories = shared("stories260k");
test.skipIf(!existsSync(stories))(
  "a checkpoint with its tokenizer, written as a folder, is the same model",
  async () => {
    const checkpoint = await openModel(join(stories, "stories260K.bin"), {
      tokenizer: join(stories, "tok512.bin"),
    });
    expect(checkpoint).toMatchObject({
      name: "stories260K.bin",
      bytes: 1056540,
      container: "llama2.c legacy",
    });
    expect(await checkpoint.fingerprint()).toEqual({
      bytes: 1056540,
      sha256: "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
    });
    const weights = await Promise.all(
      checkpoint.source.names.map(async (name) => [name, await checkpoint.source.read(name)] as const),
    );
    const out = join(folder, "stories");
    await writeModel(out, { config: checkpoint.config }, weights, {
      tokenizerFiles: await checkpoint.tokenizerFiles(),
    });

    const model = await openModel(`${out}/`);
    expect(model.name).toBe("stories");
    expect(model.config).toEqual(checkpoint.config);
    expect(model.tokenizer).toEqual(checkpoint.tokenizer);
    expect(await model.tokenizerFiles()).toEqual(await checkpoint.tokenizerFiles());
    for (const [name, weight] of weights) expect(await model.source.read(name)).toEqual(weight);
    const { sha256, bytes } = await model.fingerprint();
    expect(bytes).toBe(model.bytes);
    expect(sha256).not.toBe((await checkpoint.fingerprint()).sha256);
    await model.close();
    await checkpoint.close();
  },
);

const samples = shared("format-samples/hf2q_tiny_model");
test.skipIf(!existsSync(samples))("a folder of another writer", async () => {
  const model = await openModel(samples);
  expect(model.config).toMatchObject({ model_type: "tiny_test", vocab_size: 32 });
  expect(model.tokenizer).toMatchObject({ kind: "huggingface", config: { bos_token: "<s>" } });
  expect(model.source.names).toHaveLength(5);
  expect(model.source.format("model.embed_tokens.weight")).toBe("f16");
  expect(model.source.bytes("model.embed_tokens.weight")).toBe(512);
  expect((await model.tokenizerFiles()).map((file) => file.name)).toEqual([
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  await model.close();
});

test.skipIf(!existsSync(shared("tokenizer-llama")))("a tokenizer by its file or by its folder", async () => {
  const { kind } = await openTokenizer(shared("tokenizer-llama/tokenizer.json"));
  expect(kind).toBe("huggingface");
  expect(await openTokenizer(shared("tokenizer-llama"))).toEqual(
    await openTokenizer(shared("tokenizer-llama/tokenizer.json")),
  );
});

test("with a tokenizer.json go its config and its chat template", async () => {
  const files = {
    "tokenizer.json": '{"model":{}}',
    "tokenizer_config.json": "{}",
    "chat_template.jinja": "{{ x }}",
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const path = join(folder, "tokenizer.json");
  expect(await openTokenizer(path)).toMatchObject({ config: { chat_template: "{{ x }}" } });
  expect((await tokenizerFilesFrom(path)).map(({ name }) => name)).toEqual(Object.keys(files));
});

test("everything here bundles for a browser, with no import of Node's modules", async () => {
  const { outputFiles, warnings } = await build({
    entryPoints: [join(import.meta.dirname, "index.ts")],
    bundle: true,
    platform: "browser",
    format: "esm",
    write: false,
    logLevel: "silent",
  });
  expect(warnings).toEqual([]);
  expect(outputFiles[0].text).not.toMatch(/(from|import\(|require\()\s*"node:/);
});
