import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { pieces } from "./pieces.ts";
import { openTokens, removeTokens, type TokenFile, writeTokens } from "./token-file.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-tokens-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Ids are code points; the start token is the last id. */
const encoding = (vocabulary: number) => ({
  vocabulary,
  start: vocabulary - 1,
  encode: (text: string) => Int32Array.from(text, (character) => character.codePointAt(0)!),
});
const forPieces = ({ encode, ...rest }: ReturnType<typeof encoding>) => ({
  ...rest,
  encode: ({ text }: { readonly text: string }) => encode(text),
});
async function* documents(...texts: string[]) {
  for (const [file, text] of texts.entries()) yield { file, text, last: true, read: 0 };
}
const about = { key: "k".repeat(64), sources: [], tokenizer: "t" };
const write = (path: string, vocabulary: number, ...texts: string[]) =>
  writeTokens(path, about, pieces(documents(...texts), undefined), forPieces(encoding(vocabulary)));
const all = async (file: TokenFile) => [...(await file.slice(0, file.length))];

test("ids are stored in 16 bits where they fit, in 32 where not, the start token before each document", async () => {
  for (const [vocabulary, width] of [
    [65_536, 2],
    [65_537, 4],
  ]) {
    const path = join(folder, `${width}`);
    await write(path, vocabulary, "ab", " \n", "é", "");
    expect(readFileSync(`${path}.ids`).byteLength).toBe(5 * width);
    const stored = (await openTokens(path, about.key))!;
    expect(stored.header).toMatchObject({ width, ids: 5, documents: 2, empty: 2 });
    const file = stored.select(() => true);
    expect([file.length, file.documents, file.start(0), file.start(1), file.start(2)]).toEqual([
      5, 2, 0, 3, 5,
    ]);
    expect(await all(file)).toEqual([vocabulary - 1, 97, 98, vocabulary - 1, 233]);
    expect([...(await file.slice(1, 3))]).toEqual([97, 98]);
    await stored.close();
  }
});

test("documents are selected by file and by place, which is the hash of their text", async () => {
  const path = join(folder, "selected");
  const texts = ["aa", "b", "ccc", "dd", "e", "ff"];
  await write(path, 300, ...texts);
  const stored = (await openTokens(path, about.key))!;
  const ids = (text: string) => [299, ...encoding(300).encode(text)];
  for (let mask = 0; mask < 64; mask++) {
    const file = stored.select((f) => ((mask >> f) & 1) === 1);
    const chosen = texts.filter((_, f) => (mask >> f) & 1);
    const expected = chosen.flatMap(ids);
    expect(await all(file)).toEqual(expected);
    for (let from = 0; from < expected.length; from += 2)
      expect([...(await file.slice(from, Math.min(from + 5, expected.length)))]).toEqual(
        expected.slice(from, from + 5),
      );
  }
  const place = (text: string) =>
    Number(createHash("sha256").update(text).digest().readBigUInt64BE()) / 2 ** 64;
  const places: number[] = [];
  stored.select((_, p) => places.push(p) > 0);
  expect(places).toEqual(texts.map(place));
  await expect(stored.select(() => true).slice(3, 99)).rejects.toThrow("ids 3…99 asked for");
  await stored.close();
});

test("a text that breaks off leaves nothing", async () => {
  const failing = async function* () {
    yield* documents("ab");
    throw new Error("the text broke off");
  };
  const path = join(folder, "broken");
  await expect(
    writeTokens(path, about, pieces(failing(), undefined), forPieces(encoding(300))),
  ).rejects.toThrow("broke off");
  expect(readdirSync(folder).filter((name) => name.includes("broken"))).toEqual([]);
  expect(await openTokens(path, about.key)).toBeUndefined();
});

test("what is of another key, damaged or not there is named", async () => {
  const path = join(folder, "damaged");
  const refusal = async (key = about.key) => {
    try {
      await openTokens(path, key);
    } catch (error) {
      return (error as Error).message;
    }
  };
  await write(path, 300, "ab", "cd");
  expect(await refusal()).toBeUndefined();
  expect(await refusal("x".repeat(64))).toBe(
    "damaged.json: is of another text or tokenizer (key kkkkkkkkkkkk, not xxxxxxxxxxxx)",
  );
  for (const ending of ["ids", "docs"]) {
    await write(path, 300, "ab", "cd");
    const bytes = readFileSync(`${path}.${ending}`);
    bytes[3] ^= 1;
    writeFileSync(`${path}.${ending}`, bytes);
    expect(await refusal()).toMatch(new RegExp(`^damaged.${ending}: is damaged: SHA-256 `));
    writeFileSync(`${path}.${ending}`, bytes.subarray(2));
    expect(await refusal()).toMatch(new RegExp(`^damaged.${ending}: is damaged: bytes `));
    rmSync(`${path}.${ending}`);
    expect(await refusal()).toBe(`damaged.${ending}: no such file or folder`);
  }
  writeFileSync(`${path}.json`, "{");
  expect(await refusal()).toBe("damaged.json: is not JSON");
  writeFileSync(`${path}.json`, "{}");
  expect(await refusal()).toBe("damaged.json: is not of this version of lowbit");
  await removeTokens(path);
  expect(await refusal()).toBeUndefined();
});
