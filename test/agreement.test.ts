import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { errorBound } from "../src/autograd/error-bound.ts";
import { openBackend } from "../src/backends/index.ts";
import { tokenLosses } from "../src/evaluation/loss.ts";
import { type Sequence, windows } from "../src/evaluation/sequences.ts";
import { generate, promptIds } from "../src/generation/generate.ts";
import { Session } from "../src/generation/session.ts";
import type { Operations } from "../src/kernels/index.ts";
import { llama } from "../src/models/llama.ts";
import type { Running } from "../src/models/run.ts";
import { hostTensor, type Tensor } from "../src/tensor/tensor.ts";
import { type Loaded, load } from "../src/verbs/load.ts";
import { backendsHere } from "./backends.ts";
import { haveShared, shared } from "./shared.ts";

const model = shared("stories260k/stories260K.bin");
const tokenizer = shared("stories260k/tok512.bin");

/** The forward pass of one sequence in other hands: the operations of an error bound. */
function hidden(running: Running, ops: Operations, ids: Int32Array): Tensor {
  const { model, backend, weights, rope } = running;
  let x = model.embed(ops, backend.upload(hostTensor([ids.length], ids)), weights);
  for (let i = 0; i < model.config.layers; i++) {
    x = model.block(ops, i, x, weights, { batch: 1, time: ids.length, from: 0 }, rope);
  }
  return model.finalNorm(ops, x, weights);
}

/** How far the loss of each token of a sequence may be from exact arithmetic, on every backend. */
async function lossBounds(running: Running, { ids }: Sequence): Promise<Float64Array> {
  const { backend, weights } = running;
  const targets = backend.upload(hostTensor([ids.length - 1], ids.slice(1)));
  const head = weights.get(running.model.headWeight)!;
  const bounded = await errorBound(backend, (ops) =>
    ops.crossEntropy(hidden(running, ops, ids.subarray(0, -1)), head, targets),
  );
  const bounds = new Float64Array(ids.length - 1);
  const dy = new Float32Array(bounds.length);
  for (let t = 0; t < bounds.length; t++) {
    dy.fill(0);
    dy[t] = 1;
    const seed = backend.upload(hostTensor([dy.length], dy));
    bounds[t] = await bounded.bound(seed);
    backend.free(seed);
  }
  bounded.free();
  return bounds;
}

async function onEach<T>(
  names: readonly Running["backend"]["name"][],
  work: (loaded: Loaded) => Promise<T>,
): Promise<T[]> {
  const results: T[] = [];
  for (const name of names) {
    const backend = await openBackend(name);
    const loaded = await load(model, backend, { tokenizer });
    results.push(await work(loaded));
    await loaded.free();
    backend.dispose();
  }
  return results;
}

test.skipIf(!haveShared)(
  "losses of 2112 teacher-forced tokens agree within twice the derived bound",
  async () => {
    const names = await backendsHere();
    const text = readFileSync(shared("text-tinystories/tiny_stories_a.txt"), "utf8").slice(0, 8000);
    const cut = async (loaded: Loaded) => (await windows(text, loaded.tokenizer, 64)).all.slice(0, 33);
    const losses = await onEach(names, async (loaded) => {
      const all: number[] = [];
      for (const sequence of await cut(loaded)) all.push(...(await tokenLosses(loaded, sequence)));
      return all;
    });
    const [{ bounds, mistaken }] = await onEach(names.slice(0, 1), async (loaded) => {
      const bounds: number[] = [];
      const mistaken: number[] = [];
      const otherPairing = { ...loaded, model: llama({ ...loaded.model.config, ropePairing: "halves" }) };
      for (const sequence of await cut(loaded)) {
        bounds.push(...(await lossBounds(loaded, sequence)));
        mistaken.push(...(await tokenLosses(otherPairing, sequence)));
      }
      return { bounds, mistaken };
    });
    expect(bounds.length).toBe(2112);
    for (const [i, first] of names.entries()) {
      for (const [j, second] of names.entries()) {
        if (j <= i) continue;
        let worst = 0; // share of what is allowed
        for (const [t, bound] of bounds.entries()) {
          worst = Math.max(worst, Math.abs(losses[i][t] - losses[j][t]) / (2 * bound));
        }
        console.log(`${first} and ${second}: at most ${(100 * worst).toFixed(1)} % of twice the bound`);
        expect(worst, `${first} and ${second}`).toBeLessThanOrEqual(1);
      }
    }
    // A bound that allows everything would prove nothing: one that turns the wrong pairs is caught.
    const caught = mistaken.filter((loss, t) => Math.abs(loss - losses[0][t]) > 2 * bounds[t]);
    expect(caught.length / bounds.length).toBeGreaterThan(0.8);
  },
);

test.skipIf(!haveShared)(
  "greedy text is equal up to the first step whose margin is below twice its bound",
  async () => {
    const names = await backendsHere();
    const steps = 200;
    const runs = await onEach(names, async (loaded) => {
      const session = new Session(loaded);
      const prompt = promptIds(loaded.tokenizer, "Once upon a time");
      const ids: number[] = [];
      const margins: Margin[] = [];
      for await (const { id, logits } of generate(session, loaded.tokenizer, prompt, {
        temperature: 0,
        tokens: steps,
      })) {
        ids.push(id);
        margins.push(marginOf(logits));
      }
      session.free();
      return { ids, margins, prompt };
    });
    const [{ ids, margins, prompt }] = runs;
    const [bounds] = await onEach(names.slice(0, 1), (loaded) =>
      marginBounds(loaded, Int32Array.from([...prompt, ...ids.slice(0, -1)]), prompt.length, margins),
    );
    const doubtful = margins.findIndex(({ margin }, t) => margin < 2 * bounds[t]);
    const sure = doubtful === -1 ? ids.length : doubtful;
    const said =
      doubtful === -1
        ? `every margin of ${ids.length} greedy steps is above twice its bound`
        : `step ${doubtful} is the first whose margin (${margins[doubtful].margin}) is below twice its bound (${bounds[doubtful]})`;
    console.log(said);
    expect(sure).toBeGreaterThan(20);
    for (const [i, name] of names.entries()) {
      expect(runs[i].ids.slice(0, sure), `${name}: ${said}`).toEqual(ids.slice(0, sure));
    }
  },
);

/** By how much the best token is ahead of the next one. */
interface Margin {
  readonly best: number;
  readonly next: number;
  readonly margin: number;
}

function marginOf(logits: Float32Array): Margin {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
  const [best, next] = order;
  return { best, next, margin: logits[best] - logits[next] };
}

/** How far each step's margin may be from exact arithmetic: ids (prompt and text), the first margin after `from` of them. */
async function marginBounds(running: Running, ids: Int32Array, from: number, margins: readonly Margin[]) {
  const { backend, weights, model } = running;
  const bounded = await errorBound(backend, (ops) =>
    ops.linear(hidden(running, ops, ids), weights.get(model.headWeight)!),
  );
  const { vocabulary } = model.config;
  const dy = new Float32Array(ids.length * vocabulary);
  const bounds: number[] = [];
  for (const [t, { best, next }] of margins.entries()) {
    const row = (from - 1 + t) * vocabulary;
    dy.fill(0);
    dy[row + best] = 1;
    dy[row + next] = -1;
    const seed = backend.upload(hostTensor([ids.length, vocabulary], dy));
    bounds.push(await bounded.bound(seed));
    backend.free(seed);
  }
  bounded.free();
  return bounds;
}
