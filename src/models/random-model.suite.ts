import type { Backend } from "../backends/backend.ts";
import { generator } from "../tensor/random.ts";
import { describe } from "./index.ts";
import { initialize } from "./initialize.ts";
import { ropeTable } from "./rope-table.ts";
import type { Running } from "./run.ts";

/** A small model with random weights for tests: two blocks, grouped heads, 300 tokens of context. */
export function randomModel(backend: Backend, seed: number, vocabulary = 40): Running {
  const model = describe({
    vocab_size: vocabulary,
    max_position_embeddings: 300,
    hidden_size: 16,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 24,
    tie_word_embeddings: false,
  });
  const weights = new Map(
    Array.from(initialize(model, generator(seed), 0.5), ([name, value]) => [name, backend.upload(value)]),
  );
  return { model, backend, weights, rope: backend.upload(ropeTable(model.config, model.config.context)) };
}
