import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { generator } from "../tensor/random.ts";
import { preTokenizer, wordsOf } from "./pre-tokenizers.ts";
import { WordTable, wordEnd } from "./words.ts";

function words(text: string): string[] {
  const found: string[] = [];
  for (let at = 0; at < text.length; at += found[found.length - 1].length)
    found.push(text.slice(at, wordEnd(text, at)));
  return found;
}

const gpt2 = wordsOf(preTokenizer("gpt-2"));

test("words are those of GPT-2's expression", () => {
  const random = generator(11);
  const samples = [
    ..."aZ 09.,'!\n\t\r\u0000\u007fé日²",
    "'s",
    "'ll",
    "  ",
    "🦊",
    "e\u0301",
    "\u00a0",
    "—",
    "word",
  ];
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: 12 }, () => samples[Math.floor(random() * samples.length)]).join("");
    expect(words(text), JSON.stringify(text)).toEqual([...gpt2(text)]);
  }
});

test.skipIf(!haveShared)("and in a book", () => {
  const text = readFileSync(shared("text-classics", "Jane-Austen-Lady-Susan.md"), "utf8");
  expect(words(text)).toEqual([...gpt2(text)]);
});

test("a table numbers words as they are met and gives them back", () => {
  const table = new WordTable();
  const random = generator(1);
  const numbers = new Map<string, number>();
  for (let i = 0; i < 50_000; i++) {
    const word = `${Math.floor(random() * 20_000)} 🦊`.repeat(1 + (i % 3));
    const text = `before${word}behind`;
    const expected = numbers.get(word) ?? numbers.size;
    numbers.set(word, expected);
    if (table.add(text, 6, 6 + word.length) !== expected) expect.fail(`${word} is not ${expected}`);
  }
  expect(table.size).toBe(numbers.size);
  for (const [word, number] of numbers) if (table.text(number) !== word) expect.fail(word);
  table.clear();
  expect([table.size, table.add("ab", 1, 2), table.text(0)]).toEqual([0, 0, "b"]);
});
