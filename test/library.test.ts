import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
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

test("the README's example runs as it is written", () => {
  const root = join(import.meta.dirname, "..");
  const code = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))?.[1] ?? "";
  expect(code).toContain('from "lowbit"');
  const folder = mkdtempSync(join(tmpdir(), "lowbit-readme-"));
  try {
    const index = pathToFileURL(join(root, "src/index.ts")).href;
    writeFileSync(join(folder, "example.mts"), code.replace('"lowbit"', JSON.stringify(index)));
    copyFileSync(join(root, "examples/stories.txt"), join(folder, "book.txt"));
    const { status, stdout, stderr } = spawnSync(process.execPath, ["example.mts"], {
      cwd: folder,
      encoding: "utf8",
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const [loss, ...story] = stdout.split("\n");
    expect(Number(loss)).toBeGreaterThan(3);
    expect(Number(loss)).toBeLessThan(4);
    expect(story.join("\n").length).toBeGreaterThan(20);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
