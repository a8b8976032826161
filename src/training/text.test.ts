import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { writeTinyText } from "../../test/tiny-training.ts";
import type { Job, Progress } from "../record/record.ts";
import { tokenizerFrom, trainByteLevelBpe } from "../tokenizers/index.ts";
import { dataSchema } from "./data.ts";
import { findSources, openText } from "./text.ts";
import type { TokenFile } from "./token-file.ts";

const root = mkdtempSync(join(tmpdir(), "lowbit-text-"));
afterAll(() => rmSync(root, { recursive: true }));

let folder = "";
let count = 0;
beforeEach(() => {
  folder = join(root, String(++count));
  mkdirSync(folder);
});

const recipe = (change: object = {}) => ({
  data: dataSchema.parse({ text: "text", heldOut: ["held.txt"], tokenizer: { train: 280 }, ...change }),
});

/** What a run would see, and what it was told. */
async function open(change: object = {}, work = "work", job: Job = {}) {
  const warnings: string[] = [];
  const events: Progress[] = [];
  const told: Job = { ...job, onWarning: (w) => warnings.push(w), onProgress: (e) => events.push(e) };
  const asked = recipe(change) as Parameters<typeof findSources>[0];
  const sources = await findSources(asked, folder, told);
  const text = await openText(asked, sources, join(folder, work), told);
  const result = {
    training: await all(text.training),
    heldOut: await all(text.heldOut),
    documents: [text.training.documents, text.heldOut.documents],
    empty: text.emptyDocuments,
    vocabulary: text.vocabulary,
    data: sources.data.map(({ name }) => name),
    tasks: [...new Set(events.map(({ task }) => task))],
    events,
    warnings,
  };
  await text.close();
  return result;
}

const all = async (file: TokenFile) => [...(await file.slice(0, file.length))];
const failure = (change: object) =>
  open(change).then(
    () => "",
    (error) => error.message,
  );

/** A few hundred short documents, a line each. */
function writeRows(name: string, from: number, to: number): void {
  mkdirSync(join(folder, "rows"), { recursive: true });
  const row = (i: number) => JSON.stringify({ text: `document ${i} of many words` });
  const rows = Array.from({ length: to - from }, (_, i) => `${row(from + i)}\n`);
  writeFileSync(join(folder, "rows", name), rows.join(""));
}

test("ids are those of whole files behind one another, held-out files apart", async () => {
  const text = writeTinyText(folder);
  const read = (name: string) => readFileSync(join(text, name), "utf8");
  const data = await trainByteLevelBpe(["a.txt", "b.txt", "c.txt"].map(read), 280);
  const tokenizer = tokenizerFrom(data);
  const ids = (...names: string[]) => names.flatMap((name) => [0, ...tokenizer.encode(read(name))]);
  const found = await open();
  expect(found.training).toEqual(ids("a.txt", "b.txt", "c.txt"));
  expect(found.heldOut).toEqual(ids("held.txt"));
  expect([found.documents, found.empty, found.warnings]).toEqual([[3, 1], 0, []]);
  expect(found.data).toEqual(["a.txt", "b.txt", "c.txt", "held.txt"]);
  expect(found.events.at(-1)).toMatchObject({ task: "tokenize", unit: "bytes" });
  expect(found.events.at(-1)!.done).toBe(found.events.at(-1)!.total);
  expect(found.events.at(-1)!.note).toMatch(/^\d+ tokens\/s$/);
});

test("a second run takes everything from the cache, whatever its folder and the files' names", async () => {
  const text = writeTinyText(folder);
  const first = await open({ cache: "cache" }, "one");
  expect(first.tasks).toEqual(["read", "tokenize"]);
  expect(existsSync(join(folder, "one"))).toBe(false);
  writeFileSync(join(text, "b2.txt"), readFileSync(join(text, "b.txt")));
  rmSync(join(text, "b.txt"));
  const second = await open({ cache: "cache" }, "two");
  expect(second.tasks).toEqual([]);
  expect(second.training).toEqual(first.training);
  expect(second.vocabulary.sha256).toBe(first.vocabulary.sha256);

  writeFileSync(join(text, "c.txt"), "Something else, and more of something else.");
  const third = await open({ cache: "cache" }, "three");
  expect(third.tasks).toEqual(["read", "tokenize"]);
  expect(third.warnings).toEqual([]);
});

test("without a cache the run's own folder keeps it", async () => {
  writeTinyText(folder);
  const first = await open();
  expect((await open()).tasks).toEqual([]);
  expect((await open()).training).toEqual(first.training);
});

test("what is damaged in the cache is made anew, and a line says so", async () => {
  writeTinyText(folder);
  const first = await open();
  const work = join(folder, "work");
  const ids = readdirSync(work).find((name) => name.endsWith(".ids"))!;
  const bytes = readFileSync(join(work, ids));
  bytes[10] ^= 1;
  writeFileSync(join(work, ids), bytes);
  const second = await open();
  expect(second.training).toEqual(first.training);
  expect(second.warnings).toEqual([
    expect.stringMatching(/^tokens-.*\.ids: is damaged: .*; the text is tokenized anew$/),
  ]);

  writeFileSync(join(work, "tokenizer.json"), "{}");
  const third = await open();
  expect(third.training).toEqual(first.training);
  expect(third.warnings).toEqual(["work: its vocabulary is damaged; the vocabulary is trained anew"]);
  expect((await open()).warnings).toEqual([]);
});

test("a share is held out by the hash of the text: other documents and another order change nothing", async () => {
  writeRows("b.jsonl", 0, 400);
  const change = { text: "rows", heldOut: { share: 0.1 }, tokenizer: { train: 257 } };
  const first = await open(change);
  const [training, held] = first.documents;
  expect(training + held).toBe(400);
  expect(held).toBeGreaterThan(20); // 40 expected, standard deviation 6
  expect(held).toBeLessThan(60);

  const texts = ({ heldOut, vocabulary }: typeof first) =>
    new Set(vocabulary.tokenizer.decode(heldOut).match(/document \d+ of/g));
  rmSync(join(folder, "rows", "b.jsonl"));
  writeRows("z.jsonl", 0, 200);
  writeRows("a.jsonl", 200, 600);
  const second = await open(change, "other");
  const isOld = (text: string) => Number(/\d+/.exec(text)![0]) < 400;
  expect([...texts(second)].filter(isOld).sort()).toEqual([...texts(first)].sort());
  // A larger share holds out all that a smaller one does.
  const larger = await open({ ...change, heldOut: { share: 0.2 } }, "other");
  const more = texts(larger);
  for (const text of texts(second)) expect(more.has(text), text).toBe(true);
  expect(larger.tasks).toEqual(["read"]); // the vocabulary is another text's; of the same tokens
});

test("empty documents are skipped and counted", async () => {
  mkdirSync(join(folder, "text"));
  writeFileSync(join(folder, "text", "a.txt"), "one two two<|end|> \n<|end|>three three<|end|>");
  writeFileSync(join(folder, "text", "held.txt"), "");
  expect(await failure({ separator: "<|end|>" })).toBe(
    "data.heldOut: held.txt of 2 documents keeps nothing for validation; choose another",
  );
  writeFileSync(join(folder, "text", "held.txt"), "four");
  const { documents, empty } = await open({ separator: "<|end|>" });
  expect([documents, empty]).toEqual([[2, 1], 2]);
});

test("a text that cannot be used is named", async () => {
  const text = writeTinyText(folder);
  expect(await failure({ heldOut: { share: 1e-9 }, separator: "\u0000" })).toBe(
    "data.heldOut: a share of 1e-9 of 4 documents keeps nothing for validation; choose another",
  );
  expect(await failure({ heldOut: { share: 1e-9 } })).toBe(
    'data.heldOut: a share of 1e-9 of 4 documents keeps nothing for validation; a text file is one document unless data.separator, like "\\n\\n", says where others begin',
  );
  writeFileSync(join(text, "z.png"), Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0, 1));
  expect(await failure({})).toContain("z.png: needs text, met byte 0 at 4; is it binary?");
  expect(readdirSync(join(folder, "work")).filter((name) => name.startsWith("."))).toEqual([]);
  for (const name of ["a.txt", "b.txt", "c.txt", "held.txt", "z.png"]) writeFileSync(join(text, name), " ");
  expect(await failure({})).toBe("data.text: has no document with something in it");
});

test("an aborted signal ends the work and leaves no half of a text", async () => {
  writeTinyText(folder);
  const controller = new AbortController();
  const reason = new Error("stopped by a test");
  const asked = recipe() as Parameters<typeof findSources>[0];
  const sources = await findSources(asked, folder);
  const onProgress = ({ task }: Progress) => {
    if (task === "tokenize") controller.abort(reason);
  };
  const job = { signal: controller.signal, onProgress };
  await expect(openText(asked, sources, join(folder, "work"), job)).rejects.toBe(reason);
  expect(readdirSync(join(folder, "work")).some((name) => /tokens/.test(name))).toBe(false);
  expect(existsSync(join(folder, "work", "tokenizer.json"))).toBe(true);
});
