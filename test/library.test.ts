import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { generate, stream } from "../src/index.ts";
import { shared } from "./shared.ts";

const model = shared("stories260k/stories260K.bin");
const options = {
  model,
  tokenizer: shared("stories260k/tok512.bin"),
  prompt: "Once upon a time",
  tokens: 12,
  seed: 5,
  threads: 1,
};

test.skipIf(!existsSync(model))("stream gives, token by token, the text of generate", async () => {
  let text = "";
  let tokens = 0;
  for await (const step of stream(options)) {
    text += step.text;
    tokens++;
  }
  const record = await generate(options);
  expect({ text, tokens }).toEqual({ text: record.text, tokens: record.tokens });
});

test.skipIf(!existsSync(model))(
  "an aborted signal ends a stream within one token, with the signal's reason",
  async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    let tokens = 0;
    const consume = async () => {
      for await (const _ of stream(options, { signal: controller.signal })) {
        if (++tokens === 3) controller.abort(reason);
      }
    };
    await expect(consume()).rejects.toBe(reason);
    expect(tokens).toBe(3);
  },
);
