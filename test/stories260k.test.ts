import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bench } from "../src/verbs/bench.ts";
import { chat } from "../src/verbs/chat.ts";
import { evaluate } from "../src/verbs/evaluate.ts";
import { generate } from "../src/verbs/generate.ts";
import { type BackendName, backendsHere } from "./backends.ts";
import { doubleLoss, readCharacterVocabulary, readDoubleModel, readTokBin } from "./double.ts";
import { haveShared, shared } from "./shared.ts";

const SEPARATOR = "<|endoftext|>";
const model = shared("stories260k/stories260K.bin");
const tokenizer = shared("stories260k/tok512.bin");
const text = shared("text-tinystories/tinystories_sample.txt");
// SOURCES.md: what the model's authors' own program prints.
const GREEDY =
  ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. " +
  "She wanted to play with it, but it was too high.";

const documents = () =>
  readFileSync(text, "utf8")
    .split(SEPARATOR)
    .map((story) => story.trim())
    .filter(Boolean);

/** Mean loss of the stories by the independent implementation, nats per token; computed once for all backends. */
function byDouble(path: string, encode: () => (text: string) => number[], context: number) {
  let result: { loss: number; tokens: number } | undefined;
  return () => {
    if (result) return result;
    const checkpoint = readDoubleModel(path);
    const encodeText = encode();
    let sum = 0;
    let tokens = 0;
    for (const story of documents()) {
      const ids = [1, ...encodeText(story)].slice(0, context);
      sum += doubleLoss(checkpoint, ids);
      tokens += ids.length - 1;
    }
    result = { loss: sum / tokens, tokens };
    return result;
  };
}

const folder = mkdtempSync(join(tmpdir(), "lowbit-stories260k-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** stories260K.bin with its floats changed. */
function changed(name: string, change: (floats: Float32Array) => void): string {
  const bytes = new Uint8Array(readFileSync(model));
  change(new Float32Array(bytes.buffer, 28));
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
}

const expectedAt64 = byDouble(model, () => readTokBin(tokenizer, 512), 64);
const babyllama = shared("babyllama-tok105/model5000.bin");
const expectedBabyLlama = byDouble(
  babyllama,
  () => readCharacterVocabulary(shared("babyllama-tok105/tok105.vocab")),
  256,
);

describe.skipIf(!haveShared).each(await backendsHere())("stories260K, %s", (backend: BackendName) => {
  const measure = async (options: { models: string[]; context?: number; tokenizer?: string }) => {
    const { models } = await evaluate({
      backend,
      tokenizer,
      text,
      separator: SEPARATOR,
      context: 512,
      ...options,
    });
    return models.map((measured) => measured.text);
  };

  test("five stories, context 512: 1804 tokens, loss 1.26644; version 1 the same, int8 1.2662", async () => {
    const [legacy, version1, int8] = await measure({
      models: [model, shared("stories260k/checkpoint_v1.bin"), shared("stories260k/stories260K-q8.bin")],
    });
    expect(legacy.tokens).toBe(1804);
    expect(Math.abs(legacy.loss - 1.26644)).toBeLessThan(0.0002);
    expect(version1).toEqual(legacy);
    expect(int8.tokens).toBe(1804);
    expect(Math.abs(int8.loss - 1.2662)).toBeLessThan(0.0005);
  });

  test("context 64, documents cut: as the independent double-precision implementation", async () => {
    const [cut] = await measure({ models: [model], context: 64 });
    const double = expectedAt64();
    expect(cut.tokens).toBe(double.tokens);
    expect(Math.abs(cut.loss - double.loss)).toBeLessThan(1e-5);
  });

  test("BabyLlama tok105, context 256: as the independent double-precision implementation", async () => {
    const [measured] = await measure({
      models: [babyllama],
      tokenizer: shared("babyllama-tok105/tok105.model"),
      context: 256,
    });
    const double = expectedBabyLlama();
    expect(measured.tokens).toBe(double.tokens);
    expect(Math.abs(measured.loss - double.loss)).toBeLessThan(1e-5);
  });

  test("greedy text word for word", async () => {
    const pieces: string[] = [];
    const record = await generate(
      { backend, model, tokenizer, prompt: "Once upon a time", tokens: 60, temperature: 0 },
      { onText: (piece) => pieces.push(piece) },
    );
    expect(record.text.slice(0, GREEDY.length)).toBe(GREEDY);
    expect(pieces.join("")).toBe(record.text);
    expect(record).toMatchObject({ tokens: 60, end: "tokens" });
  });
});

describe.skipIf(!haveShared)("stories260K", () => {
  test("a model compared with itself: no divergence, no difference; bytes of the text are all counted", async () => {
    const record = await evaluate({
      models: [model],
      reference: model,
      tokenizer,
      text,
      separator: SEPARATOR,
      context: 512,
    });
    const [measured] = record.models;
    expect(measured.divergence).toEqual({ against: "stories260K.bin", klMean: 0, kl99: 0, sameTop1: 1 });
    expect(measured.difference).toMatchObject({ loss: 0, low: 0, high: 0 });
    const bytes = documents().reduce((sum, story) => sum + Buffer.byteLength(story), 0);
    expect(measured.text.bytes).toBe(bytes);
    expect(measured.text.bitsPerByte).toBeCloseTo((measured.text.loss * 1804) / Math.LN2 / bytes, 12);
    expect(measured.text.perplexity).toBeCloseTo(Math.exp(measured.text.loss), 12);
    expect(measured.sha256).toBe("b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696");
  });

  test("int8 against float: small divergence, paired difference far surer than either loss", async () => {
    const record = await evaluate({
      models: [shared("stories260k/stories260K-q8.bin")],
      reference: model,
      tokenizer,
      text,
      separator: SEPARATOR,
    });
    const [{ divergence, difference, text: measured }] = record.models;
    expect(divergence!.klMean).toBeGreaterThan(0);
    expect(divergence!.klMean).toBeLessThan(divergence!.kl99);
    expect(divergence!.kl99).toBeLessThan(0.05);
    expect(divergence!.sameTop1).toBeGreaterThan(0.97);
    expect(difference!.standardError!).toBeLessThan(measured.lossStandardError! / 20);
  });

  test("windows: every token is predicted once, whatever the stride", async () => {
    const strides = await Promise.all(
      [512, 128].map((stride) => evaluate({ models: [model], tokenizer, text, context: 512, stride })),
    );
    const [coarse, fine] = strides.map((record) => record.models[0].text);
    expect(fine.tokens).toBe(coarse.tokens);
    expect(fine.bytes).toBe(readFileSync(text).length);
    expect(fine.clusters).toBeGreaterThan(coarse.clusters);
  });

  test("a text shorter than the context is evaluated with its real token count", async () => {
    const short = { name: "short", text: "Once upon a time" };
    const { models } = await evaluate({ models: [model], tokenizer, text: short });
    const tokens = readTokBin(tokenizer, 512)(short.text).length;
    expect(models[0].text).toMatchObject({ tokens, clusters: 1, lossStandardError: null });
  });

  test.each([
    [{ text: { name: "t", text: " \n" } }, "t: is empty"],
    [{ text: undefined }, "needs a text"],
    [{ models: [] }, "needs a model"],
    [{ context: 1024 }, "a context of 1024 is more than the 512 tokens of stories260K.bin"],
    [{ documents: 3 }, "--documents needs --separator"],
    [{ tokenizer: undefined }, "stories260K.bin: comes without a tokenizer; give its file with --tokenizer"],
    [
      { tokenizer: shared("babyllama-tok105/tok105.model") },
      "vocabulary of 512 is larger than the tokenizer's 105",
    ],
    [{ reference: shared("babyllama-tok105/model5000.bin"), context: 64 }, "outside the model's vocabulary"],
  ])("bad input %#: one clear line", async (options, message) => {
    const error = await evaluate({ models: [model], tokenizer, text, ...options }).catch((e: Error) => e);
    expect(error).toMatchObject({ name: "InputError", message: expect.stringContaining(message) });
    expect((error as Error).message).not.toContain("\n");
  });

  test("a model that seems better than its source is worth a warning", async () => {
    const weaker = changed("weaker.bin", (floats) => {
      for (let i = 0; i < 512 * 64; i++) floats[i] *= 0.7; // the embedding, which is the head
    });
    const warnings: string[] = [];
    const options = { models: [model], reference: weaker, tokenizer, text, separator: SEPARATOR };
    await evaluate(options, { onWarning: (message) => warnings.push(message) });
    expect(warnings).toEqual([
      expect.stringContaining("predicts this text better than the reference weaker.bin"),
    ]);
    await evaluate(
      { ...options, models: [weaker], reference: model },
      { onWarning: (message) => warnings.push(message) },
    );
    expect(warnings.length).toBe(1);
  });

  test.each([NaN, Infinity])("%f among the weights is named with its tensor", async (value) => {
    const damaged = changed("damaged.bin", (floats) => {
      floats[512 * 64 + 5] = value;
    });
    await expect(evaluate({ models: [damaged], tokenizer, text })).rejects.toThrow(
      "damaged.bin: tensor model.layers.0.input_layernorm.weight (data) has NaN or infinity at element 5",
    );
  });

  test("a benchmark's share of memory bandwidth is what its parts say", async () => {
    const speed = await bench({ model });
    if (!("decodeTokensPerSecond" in speed))
      throw new Error("bench: measured kernels where a model was given");
    const { bytesPerToken, decodeTokensPerSecond, plainReadBytesPerSecond } = speed;
    // All 260,032 floats, and keys and values of 33.5 tokens in f16: 5 layers, 4 heads of 8.
    expect(bytesPerToken).toBe(4 * 260_032 + 2 * 2 * 5 * 32 * 33.5);
    expect(speed.memoryBandwidthShare).toBe(
      (bytesPerToken * decodeTokensPerSecond) / plainReadBytesPerSecond,
    );
    expect(speed).toMatchObject({ prefillTokens: 512, decodeTokens: 64 });
    expect(speed.prefillTokensPerSecond).toBeGreaterThan(0);
  });

  test("the same seed gives the same text on one thread and on two; another seed another", async () => {
    const sampled = async (seed: number, threads: number) =>
      (await generate({ model, tokenizer, prompt: "Once", tokens: 40, seed, threads })).text;
    const once = await sampled(5, 1);
    expect(await sampled(5, 2)).toBe(once);
    expect(await sampled(6, 2)).not.toBe(once);
  });

  test("an aborted generation stops within one token", async () => {
    const controller = new AbortController();
    let pieces = 0;
    const job = {
      signal: controller.signal,
      onText: () => {
        if (++pieces === 3) controller.abort(new Error("enough"));
      },
    };
    await expect(
      generate({ model, tokenizer, prompt: "Once upon a time", temperature: 0 }, job),
    ).rejects.toThrow("enough");
    expect(pieces).toBe(3);
  });

  test("generation ends where the context is full, and says so", async () => {
    const record = await generate({ model, tokenizer, prompt: "Once", tokens: 2000, temperature: 0 });
    expect(["eos", "context"]).toContain(record.end);
    expect(record.promptTokens + record.tokens).toBeLessThanOrEqual(512);
    await expect(generate({ model, tokenizer, prompt: "Once upon a time. ".repeat(200) })).rejects.toThrow(
      "does not fit into a context of 512",
    );
  });

  test("a conversation continues where it was, as if it had been one text", async () => {
    const conversation = await chat({ model, tokenizer });
    try {
      const say = async (words: string, tokens: number) => {
        let said = "";
        for await (const step of conversation.say(words, { temperature: 0, tokens })) said += step.text;
        return said;
      };
      const whole = await generate({
        model,
        tokenizer,
        prompt: "Once upon a time",
        tokens: 50,
        temperature: 0,
      });
      expect((await say("Once upon a time", 20)) + (await say("", 30))).toBe(whole.text);
    } finally {
      await conversation.close();
    }
  });
});
