import { describe, expect, test } from "vitest";
import { Tape } from "../autograd/tape.ts";
import { openReference } from "../backends/reference.ts";
import { describe as modelOf } from "../models/index.ts";
import { initialize } from "../models/initialize.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { generator } from "../tensor/random.ts";
import { hostTensor } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { checkTeacher, type Learner, type LossOptions, lossSchema, tokenLosses } from "./loss.ts";

const backend = openReference();
const [vocabulary, time, batch] = [13, 5, 2];
const model = modelOf({
  vocab_size: vocabulary,
  max_position_embeddings: time,
  hidden_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  intermediate_size: 12,
});
const rope = backend.upload(ropeTable(model.config, time));

function running(seed: number): Running {
  const weights = new Map(
    Array.from(initialize(model, generator(seed), 0.5), ([name, value]) => [name, backend.upload(value)]),
  );
  return { model, backend, weights, rope };
}

const ids = backend.upload(hostTensor([10], Int32Array.of(1, 5, 12, 0, 3, 3, 8, 2, 2, 7)));
const targets = backend.upload(hostTensor([10], Int32Array.of(5, 12, 0, 3, 3, 8, 2, 2, 7, -1)));
const sequences = { ids, targets, at: { batch, time, from: 0 } };
const seedOf = (value: number) => backend.upload(hostTensor([10], new Float32Array(10).fill(value)));

/** Losses and the gradients of all weights, of the mean over tokens. */
async function learn(learner: Learner, loss: LossOptions, teacher?: Running, recompute = false) {
  const tape = new Tape(backend, learner.weights.values());
  const losses = tokenLosses(
    tape,
    learner,
    sequences,
    recompute ? (body) => tape.segment(body) : (body) => body(),
    { loss, teacher },
  );
  tape.backward(losses, seedOf(1 / 10));
  const gradients = new Map<string, Float32Array>();
  for (const [name, t] of learner.weights) {
    const gradient = tape.gradients.get(t);
    gradients.set(name, gradient ? ((await backend.read(gradient)) as Float32Array) : new Float32Array());
  }
  return { losses: (await backend.read(losses)) as Float32Array, gradients };
}

const parsed = (input: object) => lossSchema.parse(input);
const kinds: [name: string, loss: LossOptions][] = [
  ["forward", parsed({ teacher: "t", soft: {} })],
  ["reverse", parsed({ teacher: "t", soft: { rule: "reverse" } })],
  ["topk", parsed({ teacher: "t", soft: { rule: "topk", k: 4 } })],
  ["states", parsed({ teacher: "t", states: { share: 0.3 } })],
  ["all", parsed({ teacher: "t", labels: 0.5, soft: { rule: "topk", k: 3, share: 2 }, states: {} })],
];

describe.each(kinds)("%s", (name, loss) => {
  test("a student that equals its teacher has nothing to learn", async () => {
    const { losses, gradients } = await learn(running(1), { ...loss, labels: 0 }, running(1));
    for (const value of losses) expect(Math.abs(value)).toBeLessThan(1e-12);
    for (const gradient of gradients.values()) {
      for (const value of gradient) expect(Math.abs(value)).toBeLessThan(1e-9);
    }
  });

  test("another one has a loss above 0 and the gradient of finite differences", async () => {
    const [student, teacher] = [running(1), running(2)];
    const { losses, gradients } = await learn(student, loss, teacher);
    for (const value of losses) expect(value).toBeGreaterThan(0);
    const again = await learn(student, loss, teacher, true);
    expect(again.gradients).toEqual(gradients);
    for (const tensor of [
      "model.embed_tokens.weight",
      "model.layers.1.mlp.up_proj.weight",
      "lm_head.weight",
    ]) {
      if (gradients.get(tensor)!.length === 0) {
        expect(name).toBe("states"); // which ends before the head, and before the last block
        continue;
      }
      const t = student.weights.get(tensor)!;
      const values = (await backend.read(t)) as Float32Array;
      for (const at of [8, 25, 50]) {
        const mean = async (moved: number) => {
          const changed = values.slice();
          changed[at] += moved;
          backend.write(t, changed);
          const { losses } = await learn(student, loss, teacher);
          return losses.reduce((sum, value) => sum + value, 0) / 10;
        };
        const slope = ((await mean(2e-3)) - (await mean(-2e-3))) / 4e-3;
        backend.write(t, values);
        expect(gradients.get(tensor)![at]).toBeCloseTo(slope, 3);
      }
    }
  });
});

test("without a teacher it is the loss of labels, with shares the sum of its parts", async () => {
  const [student, teacher] = [running(1), running(2)];
  const of = async (loss: object) => (await learn(student, parsed(loss), teacher)).losses;
  const labels = (await learn(student, parsed({}))).losses;
  expect(labels[9]).toBe(0); // no target
  expect(labels[0]).toBeGreaterThan(0);
  const soft = await of({ teacher: "t", soft: {} });
  const states = await of({ teacher: "t", states: {} });
  const all = await of({ teacher: "t", labels: 0.25, soft: { share: 3 }, states: { share: 0.5 } });
  for (let t = 0; t < 10; t++) {
    expect(all[t]).toBeCloseTo(0.25 * labels[t] + 3 * soft[t] + 0.5 * states[t], 5);
  }
});

test("what a recipe may not say", () => {
  for (const wrong of [
    { teacher: "t" },
    { soft: {} },
    { states: {} },
    { labels: 0 },
    { teacher: "t", soft: { rule: "topk" } },
    { teacher: "t", soft: { k: 3 } },
    { teacher: "t", states: { share: 0 } },
    { teacher: "t", soft: { rule: "sideways" } },
  ]) {
    expect(lossSchema.safeParse(wrong).success, JSON.stringify(wrong)).toBe(false);
  }
});

describe("checkTeacher", () => {
  const words = (pieces: readonly string[]) =>
    ({ vocabulary: pieces.length, piece: (id: number) => pieces[id] }) as unknown as Tokenizer;
  const small = words(Array.from({ length: vocabulary }, (_, id) => `w${id}`));
  const loss = parsed({ teacher: "t", soft: {} });
  const check = (config: object, tokenizer: Tokenizer, options = loss) => {
    const other = { model: { ...model, config: { ...model.config, ...config } } } as Running;
    checkTeacher({ running: other, tokenizer }, { model, tokenizer: small }, options);
  };

  test("a teacher of the same vocabulary may be larger", () => {
    check({ dim: 64, layers: 9, context: 100 }, small);
  });

  test("differences are named", () => {
    const other = words(Array.from({ length: vocabulary }, (_, id) => (id === 7 ? "x" : `w${id}`)));
    const states = parsed({ teacher: "t", states: {} });
    expect(() => check({}, other)).toThrow('teacher: token 7 is "x", the model\'s is "w7"; take a teacher');
    expect(() => check({}, words(["a"]))).toThrow("teacher: has 1 tokens, the model 13");
    expect(() => check({ vocabulary: 16 }, small)).toThrow("has 16 rows in its output matrix, the model 13");
    expect(() => check({ context: 4 }, small)).toThrow("reads 4 tokens, the model 5; set model.context");
    expect(() => check({ dim: 64 }, small, states)).toThrow("2 blocks of width 64, the model 2 of 8");
    const wide = parsed({ teacher: "t", soft: { rule: "topk", k: 14 } });
    expect(() => check({}, small, wide)).toThrow("loss.soft.k 14 is more than the 13 words");
  });
});
