import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { Tokenizer } from "../tokenizers/index.ts";
import { openTokens, writeTokens } from "./token-file.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-tokens-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Ids are code points; the start token is the last id. */
const tokenizer = (vocabulary: number) => ({ vocabulary, bos: vocabulary - 1 }) as Tokenizer;
const encode = (text: string) => Int32Array.from(text, (character) => character.codePointAt(0)!);
async function* documents(...texts: string[]) {
  yield* texts;
}

test("ids are stored in 16 bits where they fit, in 32 where not, the start token before each document", async () => {
  for (const [vocabulary, width] of [
    [65_536, 2],
    [65_537, 4],
  ]) {
    const path = join(folder, `${width}.ids`);
    await writeTokens(path, documents("ab", "", "é"), tokenizer(vocabulary), encode);
    expect(readFileSync(path).byteLength).toBe(6 * width);
    const file = await openTokens(path, vocabulary);
    expect(file.length).toBe(6);
    expect([...(await file.slice(0, 6))]).toEqual([
      vocabulary - 1,
      97,
      98,
      vocabulary - 1,
      vocabulary - 1,
      233,
    ]);
    expect([...(await file.slice(1, 3))]).toEqual([97, 98]);
    await file.close();
  }
});

test("a file that is there is not written again; one that fails leaves nothing", async () => {
  const path = join(folder, "once.ids");
  await writeTokens(path, documents("ab"), tokenizer(300), encode);
  await writeTokens(path, documents("other"), tokenizer(300), encode);
  expect(readFileSync(path).byteLength).toBe(6);
  const failing = async function* () {
    yield "ab";
    throw new Error("the text broke off");
  };
  await expect(writeTokens(join(folder, "broken.ids"), failing(), tokenizer(300), encode)).rejects.toThrow(
    "broke off",
  );
  expect(readdirSync(folder).filter((name) => name.startsWith("broken"))).toEqual([]);
});

test("a file of another width is refused", async () => {
  const path = join(folder, "odd.ids");
  await writeTokens(path, documents("ab"), tokenizer(300), encode);
  await expect(openTokens(path, 70_000)).rejects.toThrow("odd.ids: 6 bytes are not whole ids of 4");
});
