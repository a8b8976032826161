import { execFile } from "node:child_process";
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";
import { generator } from "../tensor/random.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-memory-"));
afterAll(() => rmSync(folder, { recursive: true }));

const MEGABYTE = 2 ** 20;

/** A megabyte of words and lines. */
function prose(): string {
  const random = generator(1);
  const words = Array.from({ length: 5000 }, () =>
    Array.from({ length: 2 + Math.floor(random() * 14) }, () => String.fromCharCode(97 + 26 * random())).join(
      "",
    ),
  );
  let text = "";
  while (text.length < MEGABYTE)
    text += `${words[Math.floor(5000 * random() ** 2)]}${random() < 0.1 ? ".\n" : " "}`;
  return text.slice(0, MEGABYTE);
}

const PROSE = prose();

/** Tokenizes one document of so many megabytes in a process of its own, whose values (without buffers) may take 48 MB. */
async function tokenized(megabytes: number): Promise<{ tokens: number; peak: number }> {
  const text = join(folder, String(megabytes));
  mkdirSync(text);
  writeFileSync(join(text, "held.txt"), "held out");
  for (let i = 0; i < megabytes; i++) appendFileSync(join(text, "long.txt"), PROSE);
  const data = { text, heldOut: ["held.txt"], tokenizer: { train: 300, sample: MEGABYTE } };
  const child = join(import.meta.dirname, "../../test/tokenize-child.ts");
  const args = [
    "--max-old-space-size=48",
    "--max-semi-space-size=2",
    child,
    JSON.stringify(data),
    join(folder, `${megabytes}.out`),
  ];
  return JSON.parse((await promisify(execFile)(process.execPath, args)).stdout);
}

test("a document of 24 MB takes hardly more memory than one of 3", { timeout: 120_000 }, async () => {
  const [small, large] = [await tokenized(3), await tokenized(24)];
  expect(large.tokens / small.tokens).toBeCloseTo(8, 1);
  // As one string and one list of ids it would be 24 MB and 88 MB at least.
  expect(large.peak - small.peak).toBeLessThan(48 * MEGABYTE);
});
