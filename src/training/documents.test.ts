import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { generator } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";
import { findCorpus, type SourceFile } from "./corpus.ts";
import { documents, type Part, type Reading } from "./documents.ts";
import { parquetRows } from "./parquet.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-documents-"));
afterAll(() => rmSync(folder, { recursive: true }));

function put(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function parts(path: string, reading: Partial<Reading> = {}): Promise<Part[]> {
  const { files } = await findCorpus(path, { share: 0.5 });
  return collected(documents(files, { field: "text", ...reading }));
}

/** The documents, put together from their parts. */
async function texts(path: string, reading?: Partial<Reading>): Promise<string[]> {
  const found = [""];
  for (const { text, last } of await parts(path, reading)) {
    found[found.length - 1] += text;
    if (last) found.push("");
  }
  expect(found.pop()).toBe("");
  return found;
}

const golden = (name: string) => join(import.meta.dirname, "../../test/golden/parquet", name);

describe("text files", () => {
  test("a file is a document; a byte order mark goes, line ends stay", async () => {
    expect(await texts(put("bom.txt", "\ufeffone\r\ntwo\n"))).toEqual(["one\r\ntwo\n"]);
    expect(await texts(put("empty.txt", ""))).toEqual([""]);
  });

  test("a long file comes in parts that cut no character", async () => {
    const random = generator(1);
    const letters = ["a", "é", "日", "🦊", "\n"];
    const text = Array.from({ length: 1_100_000 }, () => letters[Math.floor(random() * 5)]).join("");
    const path = put("long.txt", text);
    const found = await parts(path);
    expect(found.length).toBeGreaterThan(2);
    expect(found.map((part) => part.text).join("") === text).toBe(true);
    expect(found.every((part) => part.text.isWellFormed())).toBe(true);
    expect(found.filter((part) => part.last)).toEqual([found.at(-1)]);
    expect(found.at(-1)!.read).toBe(Buffer.byteLength(text));
  });

  test("a separator ends a document, also where it lies across two reads", async () => {
    const random = generator(2);
    const separator = "<|end|>";
    const documents = Array.from({ length: 400 }, (_, i) => "x🦊<|".repeat(Math.floor(random() * 3000)) + i);
    const found = await texts(put("many.txt", documents.join(separator)), { separator });
    expect(found.length).toBe(400);
    expect(found.every((text, i) => text === documents[i])).toBe(true);
    expect(await texts(put("ends.txt", `a${separator}${separator}`), { separator })).toEqual(["a", "", ""]);
  });

  test("bytes that are not text are named", async () => {
    const refusal = (content: Uint8Array) => texts(put("bad.txt", content)).catch((error) => error.message);
    expect(await refusal(Uint8Array.of(0x61, 0xff))).toBe(
      "bad.txt: needs UTF-8 text, met bytes that are not between 0 and 2; convert it first",
    );
    expect(await refusal(Uint8Array.of(0x61, 0xc3))).toContain("bad.txt: needs UTF-8 text"); // half a character
    expect(await refusal(Uint8Array.of(0x61, 0))).toBe("bad.txt: needs text, met byte 0 at 1; is it binary?");
  });
});

describe("JSONL", () => {
  test("each line is a document; blank lines are none, null is an empty one", async () => {
    const lines = [
      '{"text":"a\\nb","n":1}',
      "",
      '{"text":null}',
      '{"n":[{}],"text":"\\ud800 🦊"}\r',
      '{"text":""}',
    ];
    expect(await texts(put("a.jsonl", lines.join("\n")))).toEqual(["a\nb", "", "\ufffd 🦊", ""]);
    expect(await texts(put("b.ndjson", '{"body":"x"}\n'), { field: "body" })).toEqual(["x"]);
  });

  test("many lines come as they are", async () => {
    const rows = Array.from({ length: 20_000 }, (_, i) => `${i} ${"日本".repeat(i % 50)}`);
    const path = put("many.jsonl", rows.map((text) => `${JSON.stringify({ text })}\n`).join(""));
    const found = await texts(path);
    expect(found.length).toBe(rows.length);
    expect(found.every((text, i) => text === rows[i])).toBe(true);
  });

  test("a line that is no object with a text is named", async () => {
    const refusal = (line: string) =>
      texts(put("bad.jsonl", `{"text":"a"}\n${line}\n`)).catch((error) => error.message);
    expect(await refusal("plain words")).toBe(
      "bad.jsonl line 2: needs an object in JSON, met plain words; is the file JSONL?",
    );
    expect(await refusal("[1]")).toContain("bad.jsonl line 2: needs an object in JSON, met [1]");
    expect(await refusal('{"body":"x","n":1}')).toBe(
      'bad.jsonl line 2: needs a text in "text", met none; it has body, n; set data.field',
    );
    expect(await refusal('{"text":5}')).toBe(
      'bad.jsonl line 2: needs a text in "text", met 5; set data.field',
    );
  });
});

describe("Parquet (files of pyarrow, test/golden/parquet)", () => {
  const rows = (JSON.parse(readFileSync(golden("rows.json"), "utf8")) as (string | null)[]).map(
    (r) => r ?? "",
  );

  test.each(["plain", "snappy", "zstd", "gzip-paged", "brotli", "lz4"])("%s: every row", async (name) => {
    const found = await parts(golden(`${name}.parquet`));
    expect(found.map(({ text }) => text)).toEqual(rows);
    expect(found.every(({ last }) => last)).toBe(true);
    expect(found.at(-1)!.read).toBe(readFileSync(golden(`${name}.parquet`)).byteLength);
  });

  test("a column that is none, or not text, and a damaged file are named", async () => {
    const refusal = (path: string, field: string) => texts(path, { field }).catch((error) => error.message);
    const plain = golden("plain.parquet");
    expect(await refusal(plain, "body")).toBe(
      'plain.parquet: needs a column "body", has id, text, meta; set data.field',
    );
    expect(await refusal(plain, "id")).toBe(
      'plain.parquet row 0: needs a text in "id", met bigint; set data.field',
    );
    expect(await refusal(plain, "meta")).toContain('plain.parquet row 0: needs a text in "meta", met object');
    const bytes = readFileSync(plain);
    expect(await refusal(put("cut.parquet", bytes.subarray(0, 2000)), "text")).toMatch(
      /^cut.parquet: cannot be read as Parquet \(.*\); damaged\?$/,
    );
    expect(await refusal(put("none.parquet", ""), "text")).toContain(
      "none.parquet: cannot be read as Parquet",
    );
  });
});

test("a Parquet file with any byte of its footer damaged gives all its rows or is refused, and ends", async () => {
  const bytes = readFileSync(golden("plain.parquet"));
  const footer = bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8);
  for (let at = footer; at < bytes.length - 8; at++) {
    const damaged = Uint8Array.from(bytes);
    damaged[at] += 1 + 3 * (at % 2); // the lowest bit, or the third
    const source = {
      name: "damaged.parquet",
      byteLength: damaged.length,
      slice: async (from: number, to: number) => damaged.slice(from, to),
      close: async () => {},
    };
    const found = await collected(parquetRows(source, "text")).catch((error: Error) => error);
    if (found instanceof Error) expect(found, `byte ${at}`).toBeInstanceOf(InputError);
    else expect(found.length, `byte ${at}`).toBe(40);
  }
});

describe("folders", () => {
  test("any mix, sorted by path, without hidden files", async () => {
    put("mix/b.txt", "text");
    put("mix/a/z.jsonl", '{"text":"line"}\n');
    put("mix/C.md", "capital");
    put("mix/.hidden", "no");
    put("mix/p.parquet", readFileSync(golden("snappy.parquet")));
    const { files } = await findCorpus(join(folder, "mix"), ["b.txt"]);
    expect(files.map(({ name, kind }: SourceFile) => `${name} ${kind}`)).toEqual([
      "C.md text",
      "a/z.jsonl jsonl",
      "b.txt text",
      "p.parquet parquet",
    ]);
    expect((await texts(join(folder, "mix"))).slice(0, 3)).toEqual(["capital", "line", "text"]);
  });

  test("nothing to read, and files held out that are not there, are refused", async () => {
    const refusal = (text: string, heldOut: string[] | { share: number }) =>
      findCorpus(text, heldOut).catch((error) => error.message);
    put("two/a.txt", "a");
    put("two/b.txt", "b");
    mkdirSync(join(folder, "nothing"));
    const two = join(folder, "two");
    expect(await refusal(join(folder, "absent"), ["a"])).toContain("absent does not exist");
    expect(await refusal(join(folder, "nothing"), ["a"])).toContain("holds no files");
    expect(await refusal(two, ["a.txt", "c.txt"])).toContain("c.txt is not among the 2 files");
    expect(await refusal(two, ["a.txt", "b.txt"])).toContain("are held out; leave some to train on");
  });
});
