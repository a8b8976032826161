import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { trainByteLevelBpe } from "../src/tokenizers/index.ts";
import { haveShared, shared } from "./shared.ts";

const cli = join(import.meta.dirname, "../bin/lowbit.mjs");
let folder = "";

function lowbit(args: string[], input = "") {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, "tokenize", ...args], {
    cwd: folder,
    encoding: "utf8",
    input,
  });
  return { status, stdout, stderr };
}

function expectRefused(args: string[], ...words: RegExp[]): void {
  const { status, stdout, stderr } = lowbit(args);
  const lines = stderr.trimEnd().split("\n");
  expect({ status, stdout, lines: lines.length }, stderr).toEqual({ status: 2, stdout: "", lines: 1 });
  for (const word of words) expect(lines[0]).toMatch(word);
}

const json = (args: string[], input?: string) => {
  const { status, stdout, stderr } = lowbit([...args, "--json", "--quiet"], input);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout);
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-tokenize-"));
  const { tokenizer, config } = await trainByteLevelBpe(["the cat and the hat and the bat"], 270);
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  writeFileSync(join(folder, "text.txt"), "the cat\tand ü\n");
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("ids and pieces of an argument, a file and stdin are the same; ids give the text back", () => {
  const text = "the cat\tand ü\n";
  const record = json([".", text]);
  expect(record).toMatchObject({ record: "lowbit", verb: "tokenize", vocabulary: 264, bos: 0, eos: 0 });
  expect(record.pieces.join("")).toBe("theĠcatĉandĠÃ¼Ċ");
  expect(record.ids).toHaveLength(record.pieces.length);
  expect(json([".", "--text", "text.txt"]).ids).toEqual(record.ids);
  expect(json(["."], text).ids).toEqual(record.ids);
  expect(json(["tokenizer.json"], text).ids).toEqual(record.ids);
  expect(lowbit([".", "--decode"], JSON.stringify(record.ids)).stdout).toBe(text);
  expect(lowbit([".", "--decode", record.ids.join(" ")]).stdout).toBe(text);
  expect(json([".", "--decode", record.ids.join("\n")])).toMatchObject({ text, tokens: record.ids.length });
});

test("a person sees a token on each line", () => {
  const { ids, pieces } = json([".", "the cat"]);
  const lines = ids.map((id: number, i: number) => `${id}\t${pieces[i]}`);
  expect(lowbit([".", "the cat"]).stdout).toBe(`${lines.join("\n")}\n`);
  expect(json(["."], "").ids).toEqual([]);
});

describe("bad input ends in one line and status 2", () => {
  test.each([
    ["a missing model", ["nothing-here", "a"], /nothing-here/],
    ["a missing text", [".", "--text", "none.txt"], /none.txt/],
    ["a text twice", [".", "a", "--text", "text.txt"], /got both/],
    ["words for ids", [".", "--decode", "1 two"], /"two" is not an id/],
    [
      "an id beyond the vocabulary",
      [".", "--decode", "[266]"],
      /266 is not an id; the vocabulary has 0 to 263/,
    ],
    ["an enormous id", [".", "--decode", "99999999999999999999"], /is not an id/],
  ])("%s", (_, args, message) => expectRefused(args, message));

  test("a file that is not UTF-8", () => {
    writeFileSync(join(folder, "latin1.txt"), Uint8Array.of(0x61, 0xfc));
    expectRefused([".", "--text", "latin1.txt"], /latin1.txt: needs UTF-8/);
  });
});

describe.skipIf(!haveShared)("real models (../shared/data)", () => {
  const gguf = shared("gguf-vocab", "ggml-vocab-llama-spm.gguf");
  const bin = shared("stories260k", "stories260K.bin");

  test("a GGUF vocabulary, control tokens where asked", () => {
    expect(json([gguf, "Hello world</s>"]).pieces).toEqual(["▁Hello", "▁world", "</", "s", ">"]);
    expect(json([gguf, "Hello world</s>", "--special"]).ids).toEqual([15043, 3186, 2]);
    expect(lowbit([gguf, "--decode", "15043 3186"]).stdout).toBe("Hello world");
  });

  test("a llama2.c model needs its tokenizer", () => {
    const args = [bin, "--tokenizer", shared("stories260k", "tok512.bin")];
    const { ids } = json(args, "Once upon a time");
    expect(lowbit([...args, "--decode", JSON.stringify(ids)]).stdout).toBe("Once upon a time");
    expectRefused([bin, "a"], /comes without a tokenizer; give its file with --tokenizer/);
  });
});
