import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** What llama.cpp is asked about a file. */
export interface Question {
  readonly file: string;
  /** Type of keys and values in its cache. */
  readonly cache: "F32" | "F16";
  readonly text: string;
  /** Tokens whose successors' logits are wanted. */
  readonly ids: readonly number[];
  /** Tokens to continue greedily by so many. */
  readonly prompt: readonly number[];
  readonly count: number;
}

export interface Answer {
  /** Ids of the text, without start and end. */
  readonly tokens: readonly number[];
  readonly bos: number | null;
  /** (ids, vocabulary), float32, base64. */
  readonly logits: string;
  /** Ids of the greedy continuation. */
  readonly greedy: readonly number[];
}

// The part of node-llama-cpp 3.22 that is used here.
interface Sequence {
  controlledEvaluate(
    input: readonly (readonly [number, { generateNext: { logits: true } }])[],
  ): Promise<({ next: { logits: Map<number, number> } } | undefined)[]>;
  evaluate(
    ids: readonly number[],
    options: { temperature: number; yieldEogToken: boolean },
  ): AsyncIterable<number>;
}
interface Context {
  getSequence(): Sequence;
  dispose(): Promise<void>;
}
interface Peer {
  getLlama(options: object): Promise<{
    loadModel(options: { modelPath: string }): Promise<{
      tokenize(text: string, special: boolean, options?: string): number[];
      readonly tokens: { readonly bos: number | null };
      createContext(options: object): Promise<Context>;
      dispose(): Promise<void>;
    }>;
  }>;
}

/** node llama-cpp-child.ts FOLDER QUESTIONS.json ANSWERS.json, FOLDER being one with node_modules/node-llama-cpp. */
async function main([folder, questions, answers]: string[]): Promise<void> {
  const entry = join(folder, "node_modules/node-llama-cpp/dist/index.js");
  const peer = (await import(pathToFileURL(entry).href)) as Peer;
  const llama = await peer.getLlama({ gpu: false, logLevel: "error" });
  const found: Answer[] = [];
  for (const { file, cache, text, ids, prompt, count } of JSON.parse(
    readFileSync(questions, "utf8"),
  ) as Question[]) {
    const model = await llama.loadModel({ modelPath: file });
    const context = () =>
      model.createContext({
        contextSize: 256,
        threads: 1,
        flashAttention: false,
        experimentalKvCacheKeyType: cache,
        experimentalKvCacheValueType: cache,
      });

    const first = await context();
    const asked = ids.map((id) => [id, { generateNext: { logits: true } }] as const);
    const outputs = await first.getSequence().controlledEvaluate(asked);
    const vocabulary = outputs[0]!.next.logits.size;
    const logits = new Float32Array(ids.length * vocabulary);
    for (const [t, output] of outputs.entries())
      for (const [id, logit] of output!.next.logits) logits[t * vocabulary + id] = logit;
    await first.dispose();

    const second = await context();
    const greedy: number[] = [];
    for await (const id of second.getSequence().evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
      greedy.push(id);
      if (greedy.length >= count) break;
    }
    await second.dispose();
    found.push({
      tokens: model.tokenize(text, false),
      bos: model.tokens.bos,
      logits: Buffer.from(logits.buffer).toString("base64"),
      greedy,
    });
    await model.dispose();
  }
  writeFileSync(answers, JSON.stringify(found));
  process.exit(0);
}

if (process.argv[1] === import.meta.filename) await main(process.argv.slice(2));
