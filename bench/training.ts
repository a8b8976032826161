// What bench/train.ts measures: a small LLaMA that learns, written in the operations alone.
import { Tape } from "../src/autograd/tape.ts";
import type { Backend } from "../src/backends/backend.ts";
import { bf16Operations, type Operations } from "../src/kernels/index.ts";
import { initialize } from "../src/models/initialize.ts";
import { llama } from "../src/models/llama.ts";
import { ropeTable } from "../src/models/rope-table.ts";
import { generator, permutation, type Random } from "../src/tensor/random.ts";
import { hostTensor, type Tensor } from "../src/tensor/tensor.ts";

export type Family = "float" | "ternary";
export type Precision = "float32" | "bf16";

export interface Shape {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly ffn: number;
  readonly vocabulary: number;
  readonly time: number;
  readonly batch: number;
}

export interface Training {
  /** One step of AdamW on batch·time + 1 tokens, each predicted from those before it. */
  step(text: Int32Array): void;
  /** Mean loss of such tokens, nats, with products in float32. */
  loss(text: Int32Array): Promise<number>;
  dispose(): void;
}

export function training(
  backend: Backend,
  shape: Shape,
  family: Family,
  precision: Precision,
  seed: number,
): Training {
  const { dim, layers, heads, ffn, vocabulary, time, batch } = shape;
  const tokens = time * batch;
  const config = { dim, layers, heads, kvHeads: heads, headDim: dim / heads, ffn, vocabulary, context: time };
  const model = llama({
    ...config,
    architecture: "llama",
    normEpsilon: 1e-5,
    ropeBase: 10000,
    ropePairing: "neighbours",
    tiedHead: false,
  });
  const parameters = new Map<string, Tensor>();
  const moments = new Map<Tensor, { first: Tensor; second: Tensor }>();
  for (const [name, value] of initialize(model, generator(seed))) {
    const parameter = backend.upload(value);
    parameters.set(name, parameter);
    moments.set(parameter, { first: backend.zeros(value.shape), second: backend.zeros(value.shape) });
  }
  const rope = backend.upload(ropeTable(model.config, time));
  const slope = backend.upload(hostTensor([tokens], new Float32Array(tokens).fill(1 / tokens)));
  const norm = backend.zeros([1]); // not limited: maxNorm 0
  const tape = new Tape(backend, parameters.values());
  const learning = precision === "bf16" ? bf16Operations(tape) : tape;
  const roles = new Map(model.tensors.map((tensor) => [tensor.name, tensor.role]));
  let count = 0;

  /** −ln p of each token. */
  const losses = (ops: Operations, text: Int32Array): Tensor => {
    const weights = new Map(parameters);
    if (family === "ternary") {
      for (const [name, w] of parameters)
        if (roles.get(name) === "linear") weights.set(name, ops.ternary(w, 1e-5));
    }
    const ids = backend.upload(hostTensor([tokens], text.slice(0, tokens)));
    const targets = backend.upload(hostTensor([tokens], text.slice(1)));
    let x = model.embed(ops, ids, weights);
    for (let i = 0; i < layers; i++) x = model.block(ops, i, x, weights, { batch, time, from: 0 }, rope);
    return ops.crossEntropy(model.finalNorm(ops, x, weights), weights.get(model.headWeight)!, targets);
  };

  return {
    step(text) {
      backend.scope(() => {
        tape.backward(losses(learning, text), slope);
      });
      count++;
      for (const [parameter, { first, second }] of moments) {
        const gradient = tape.gradients.get(parameter)!;
        backend.adamw(parameter, gradient, first, second, norm, 1e-3, 0.9, 0.999, 1e-8, 0.01, count, 0);
      }
      tape.clear();
    },
    async loss(text) {
      const made = backend.scope(() => losses(backend, text));
      const values = await backend.read(made);
      backend.free(made);
      return (values as Float32Array).reduce((sum, value) => sum + value, 0) / tokens;
    },
    dispose() {
      const state = [...moments.values()].flatMap(({ first, second }) => [first, second]);
      for (const t of [...parameters.values(), ...state, rope, slope, norm]) backend.free(t);
    },
  };
}

/**
 * An endless text of a Markov chain: after each word come sixteen others, drawn at random once, the r-th of them with
 * probability proportional to 1/r, as words of a language are (Zipf).
 */
export function markovText(vocabulary: number, seed: number): (length: number) => Int32Array {
  const followers = 16;
  const random: Random = generator(seed);
  const after = Array.from({ length: vocabulary }, () => permutation(random, vocabulary).slice(0, followers));
  const ranks = Array.from({ length: followers }, (_, r) => 1 / (r + 1));
  const total = ranks.reduce((a, b) => a + b);
  let word = 0;
  return (length) =>
    Int32Array.from({ length }, () => {
      let left = random() * total;
      let rank = 0;
      while (rank < followers - 1 && left >= ranks[rank]) left -= ranks[rank++];
      word = after[word][rank];
      return word;
    });
}
