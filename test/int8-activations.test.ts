import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { evaluate } from "../src/verbs/evaluate.ts";

const stories = new URL("../examples/stories.txt", import.meta.url);

test("int8 activations change the loss of a bundled model by less than 0.1 %", async () => {
  const text = { name: "stories", text: readFileSync(stories, "utf8").slice(0, 12_000) };
  const options = { models: ["bundled:trilm"], reference: "bundled:trilm", text };
  const { models, reference } = await evaluate({ ...options, activations: "int8" });
  const [rounded, plain] = [models[0].text.loss, reference!.text.loss];
  expect(rounded).not.toBe(plain); // they were rounded
  expect(Math.abs(rounded / plain - 1)).toBeLessThan(0.001);
});
