import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RecipeInput } from "../src/training/recipe.ts";

/** A few kilobytes of text that repeats enough to be learned from: `text/a.txt`, `b.txt`, `c.txt` and held-out `held.txt`. */
export function writeTinyText(folder: string): string {
  const text = join(folder, "text");
  if (existsSync(text)) return text;
  mkdirSync(text, { recursive: true });
  const animals = ["fox", "hen", "owl", "cat", "dog"];
  const verbs = ["sees", "likes", "follows", "hears"];
  for (const [f, name] of ["a.txt", "b.txt", "c.txt", "held.txt"].entries()) {
    const sentences = Array.from({ length: 60 }, (_, i) => {
      const [x, y, v] = [animals[(i + f) % 5], animals[(3 * i + f + 1) % 5], verbs[(i * (f + 1)) % 4]];
      return `The ${x} ${v} the ${y}.${i % 6 === 5 ? "\n\n" : " "}`;
    });
    writeFileSync(join(text, name), sentences.join(""));
  }
  return text;
}

/** A run of twelve steps with four checkpoints that takes a second in plain TypeScript. */
export function tinyRecipe(text: string, family: "float" | "trilm"): RecipeInput {
  return {
    family,
    model: { dim: 16, layers: 2, heads: 2, ffn: 32, context: 16 },
    data: { text, heldOut: ["held.txt"], tokenizer: { train: 280 } },
    batch: 4,
    microBatch: 2,
    steps: 12,
    schedule:
      family === "float"
        ? { kind: "cosine", peak: 0.01, warmup: 2 }
        : { kind: "trilm", p1: 0.02, p2: 0.012, warmup: 2 },
    seed: 3,
    checkpointEvery: 3,
    validateEvery: 4,
    ...(family === "trilm" ? { formats: { linear: "int2" } } : {}),
  };
}

/** What a finished run must have the same bits of, however often it was interrupted. */
export function bitsOf(out: string): {
  weights: string;
  log: string[];
  tokenizer: string;
  validation: unknown;
} {
  const record = JSON.parse(readFileSync(join(out, "record.json"), "utf8"));
  const lines = readFileSync(join(out, "log.jsonl"), "utf8").trimEnd().split("\n");
  return {
    weights: readFileSync(join(out, "model.safetensors")).toString("base64"),
    log: lines.map((line) => JSON.stringify({ ...JSON.parse(line), timing: undefined })),
    tokenizer: readFileSync(join(out, "tokenizer.json"), "utf8"),
    validation: record.validation,
  };
}
