import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Backend } from "../src/backends/backend.ts";
import { openBackend } from "../src/backends/index.ts";
import { hiddenStates, logits } from "../src/models/run.ts";
import { convert } from "../src/verbs/convert.ts";
import { type Loaded, load } from "../src/verbs/load.ts";
import type { Answer, Question } from "./llama-cpp-child.ts";
import { shared } from "./shared.ts";

// What we export behaves in llama.cpp as here. Opt-in: in a scratch folder run
//   npm install node-llama-cpp@3.22
// and give that folder as LOWBIT_LLAMA_CPP.
const peer = process.env.LOWBIT_LLAMA_CPP ?? "";
const here = existsSync(join(peer, "node_modules/node-llama-cpp"));

const TEXT =
  "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog.";
const COUNT = 48;
/**
 * Tokens of at least this probability. Beside f16 weights llama.cpp rounds activations to fp16, which moves the log p of
 * tokens of a millionth by up to 0.01.
 */
const PROBABLE = Math.log(0.01);

const models = [
  {
    name: "stories260K",
    model: shared("stories260k/stories260K.bin"),
    tokenizer: shared("stories260k/tok512.bin"),
  },
  {
    name: "BabyLlama",
    model: shared("babyllama-tok105/model5000.bin"),
    tokenizer: shared("babyllama-tok105/tok105.model"),
  },
  { name: "bundled:float", model: "bundled:float", tokenizer: undefined },
  { name: "bundled:trilm", model: "bundled:trilm", tokenizer: undefined },
];

/** Bounds of the issue, at every position of the text: on |Δ log p| of all or of the probable tokens, or on the mean KL. */
const kinds = [
  { type: "f32", of: "all", most: 1e-3 },
  { type: "f16", of: "probable", most: 5e-3 },
  { type: "q8_0", of: "KL", most: 1e-3 },
  { type: "q4_0", of: "KL", most: 1e-3 },
  { type: "q4_k", of: "KL", most: 1e-3 },
  { type: "tq2_0", of: "KL", most: 1e-3 },
  { type: undefined, of: "KL", most: 1e-3 }, // formats as they are
] as const;

/** The other types that ggml has and we write, on the model whose rows are whole blocks of all of them. */
const rest = ["bf16", "q4_1", "q5_0", "q5_1", "iq4_nl", "q2_k", "q3_k", "q5_k", "q6_k", "tq1_0"].map(
  (type) => ({ type, of: "KL", most: 1e-3 }) as const,
);

let folder: string;
let backend: Backend;

beforeAll(async () => {
  if (!here) return;
  folder = mkdtempSync(join(tmpdir(), "lowbit-llama-cpp-"));
  backend = await openBackend({ threads: 2 });
});
afterAll(() => {
  if (!here) return;
  backend.dispose();
  rmSync(folder, { recursive: true });
});

/** log p of every token after each of the ids: (ids, vocabulary). */
function logProbabilities(scores: Float32Array, vocabulary: number): Float64Array {
  const result = Float64Array.from(scores);
  for (let from = 0; from < result.length; from += vocabulary) {
    const row = result.subarray(from, from + vocabulary);
    const most = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const sum = row.reduce((total, x) => total + Math.exp(x - most), 0);
    for (let i = 0; i < vocabulary; i++) row[i] -= most + Math.log(sum);
  }
  return result;
}

async function ours(loaded: Loaded, ids: readonly number[]): Promise<Float32Array> {
  const hidden = hiddenStates(loaded, Int32Array.from(ids));
  const scores = logits(loaded, hidden);
  const result = ((await backend.read(scores)) as Float32Array).slice();
  backend.free(hidden);
  backend.free(scores);
  return result;
}

describe.skipIf(!here)("llama.cpp (set LOWBIT_LLAMA_CPP to a folder with node-llama-cpp)", () => {
  for (const { name, model, tokenizer } of models) {
    test.skipIf(!model.startsWith("bundled:") && !existsSync(model))(name, { timeout: 300_000 }, async () => {
      const checked = name === "bundled:float" ? [...kinds, ...rest] : kinds;
      const loadeds: Loaded[] = [];
      onTestFinished(async () => {
        for (const loaded of loadeds) await loaded.free();
      });
      const questions: Question[] = [];
      for (const { type } of checked) {
        const file = join(folder, `${name.replace(":", "-")}-${type ?? "own"}.gguf`);
        await convert({ model, tokenizer, output: file, type });
        const loaded = await load(file, backend);
        loadeds.push(loaded);
        const start = loaded.tokenizer.bos === undefined ? [] : [loaded.tokenizer.bos];
        const ids = [...start, ...loaded.tokenizer.encode(TEXT)];
        questions.push({ file, cache: "F32", text: TEXT, ids, prompt: ids.slice(0, 6), count: COUNT });
      }
      const [asked, answered] = [join(folder, "questions.json"), join(folder, "answers.json")];
      writeFileSync(asked, JSON.stringify(questions));
      execFileSync(
        process.execPath,
        [join(import.meta.dirname, "llama-cpp-child.ts"), peer, asked, answered],
        {
          cwd: peer,
          stdio: ["ignore", "ignore", "inherit"],
        },
      );
      const answers: Answer[] = JSON.parse(readFileSync(answered, "utf8"));

      const met: string[] = [];
      for (const [k, { type, of, most }] of checked.entries()) {
        const [loaded, { ids, prompt }, answer] = [loadeds[k], questions[k], answers[k]];
        expect([...loaded.tokenizer.encode(TEXT)], "ids of the text").toEqual(answer.tokens);
        const vocabulary = loaded.model.config.vocabulary;
        const bytes = Buffer.from(answer.logits, "base64");
        const theirs = logProbabilities(new Float32Array(new Uint8Array(bytes).buffer), vocabulary);
        const own = logProbabilities(await ours(loaded, ids), vocabulary);
        const differences = { all: 0, probable: 0, KL: 0 };
        for (const [i, p] of theirs.entries()) {
          const difference = Math.abs(own[i] - p);
          differences.all = Math.max(differences.all, difference);
          if (p > PROBABLE) differences.probable = Math.max(differences.probable, difference);
          differences.KL += (Math.exp(p) * (p - own[i])) / ids.length;
        }
        met.push(`${type ?? "as it is"} ${of} ${differences[of].toExponential(2)}`);
        expect.soft(differences[of], `${name} ${type ?? "as it is"}: ${of}`).toBeLessThanOrEqual(most);

        // Greedy: at each of llama.cpp's tokens ours is the same, until two are too near for the two programs to tell apart.
        const all = [...prompt, ...answer.greedy];
        const scores = await ours(loaded, all);
        for (const [t, id] of answer.greedy.entries()) {
          const row = scores.subarray((prompt.length + t - 1) * vocabulary, (prompt.length + t) * vocabulary);
          const best = row.reduce((at, x, i) => (x > row[at] ? i : at), 0);
          if (best === id) continue;
          expect
            .soft(row[best] - row[id], `${name} ${type}: greedy token ${t}`)
            .toBeLessThan(2 * differences.all);
          break;
        }
      }
      console.log(`${name}: ${met.join(", ")}`);
    });
  }
});
