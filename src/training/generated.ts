import { openDisk, openGrowing, remove, whatIs } from "../files/disk.ts";
import type { ByteSource } from "../files/file.ts";
import { openModel } from "../files/index.ts";
import { fs } from "../files/node.ts";
import { greedy, race } from "../generation/candidates.ts";
import { candidates } from "../generation/sampling.ts";
import { Session } from "../generation/session.ts";
import { describe } from "../models/index.ts";
import type { Running } from "../models/run.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { generator, permutation } from "../tensor/random.ts";
import { InputError, naming } from "../tensor/tensor.ts";
import type { DataRecipe } from "./data.ts";
import { placeOf } from "./pieces.ts";
import type { Recipe } from "./recipe.ts";
import { placed } from "./recipe-file.ts";
import { type About, writeTokens } from "./token-file.ts";
import { type Vocabulary, vocabularyOfModel } from "./vocabulary.ts";

type Settings = NonNullable<DataRecipe["generate"]>;

/** The model that writes a recipe's text. */
export interface Writer {
  /** How it is found from the current folder. */
  readonly spec: string;
  readonly print: Fingerprint;
  readonly vocabulary: Vocabulary;
  /** Ids at which a text is over. */
  readonly ends: readonly number[];
  readonly settings: Settings;
  /** Most tokens of a text: what both models can look back on. */
  readonly length: number;
}

/** Opens it as it will be used, on a backend; the caller frees it. */
export type OpenWriter = () => Promise<Running & { free(): unknown }>;

/** Finds out who writes for a recipe in folder `base`; undefined where its text is read. Reads headers and hashes the model. */
export async function findWriter(recipe: Recipe, base: string, job: Job): Promise<Writer | undefined> {
  const settings = recipe.data.generate;
  if (!settings) return undefined;
  const named = settings.model ?? recipe.loss.teacher ?? recipe.from;
  if (named === undefined)
    throw new InputError(
      "data.generate: needs a model that writes; give data.generate.model, loss.teacher or from",
    );
  const spec = placed(named, base);
  const file = await openModel(spec, { ...job, onWarning: undefined });
  try {
    const { config } = naming(file.name, () => describe(file.config));
    const vocabulary = await vocabularyOfModel(file);
    const { bos, eos, ends = [] } = vocabulary.tokenizer;
    const named = [file.generation?.eos_token_id].flat();
    const all = [bos, eos, ...ends, ...named].filter((id) => typeof id === "number");
    return {
      spec,
      print: { name: file.name, ...(await file.fingerprint()) },
      vocabulary,
      ends: [...new Set(all)],
      settings,
      length: Math.min(config.context, recipe.model.context),
    };
  } finally {
    await file.close();
  }
}

/** What the generated text is made of, as far as it can be told before. */
export function generatedFrom({ print, settings, length, vocabulary }: Writer): unknown[] {
  const { model: _, ...rest } = settings;
  return ["generated", 1, print.sha256, rest, length, vocabulary.sha256];
}

/**
 * Lets a model write a text of so many tokens and stores it as `path`. Each
 * document begins with the start token, where there is one, and a first token
 * that is another each time, in a random order of all; the likeliest follow,
 * up to `greedy` tokens, and then tokens drawn from the model's own
 * distribution, until a text ends or is as long as the context.
 *
 * Liu et al., 2023 (https://arxiv.org/abs/2305.17888), section 2.1, and
 * generate_data.py of https://github.com/facebookresearch/LLM-QAT. What
 * differs: there the first token stands without the start token before it, its
 * order is that of the ids, and 3, 4 and 5 tokens come one after another for
 * all of them.
 *
 * The ids are a function of model, settings and backend: of the n-th text, of
 * n. What is written is kept in `path`.partial, from which an interrupted call
 * goes on.
 */
export async function generateTokens(
  path: string,
  about: About,
  writer: Writer,
  open: OpenWriter,
  job: Job,
): Promise<void> {
  const partial = `${path}.partial`;
  const { vocabulary, settings } = writer;
  const { tokens } = settings;
  const start = startOf(vocabulary);
  const own = start === undefined ? 0 : 1;
  const whole = await completeTexts(partial);
  const began = { texts: whole.texts, ids: whole.ids + own * whole.texts };
  if (began.ids < tokens) {
    const running = await open();
    const file = await openGrowing(partial);
    try {
      let { ids } = began;
      const clock = performance.now();
      for await (const text of texts(running, writer, began.texts, job)) {
        const rest = text.subarray(0, tokens - ids - own);
        if (rest.length > 0) await file.append(packed(rest));
        ids += rest.length + own;
        const rate = Math.round((1000 * (ids - began.ids)) / (performance.now() - clock));
        const done = Math.min(ids, tokens);
        job.onProgress?.({ task: "generate", done, total: tokens, unit: "tokens", note: `${rate} tokens/s` });
        if (ids >= tokens) break;
      }
    } finally {
      await file.close();
      await running.free();
    }
  }
  const source = await openDisk(partial);
  try {
    await writeTokens(path, about, storedTexts(source), {
      vocabulary: vocabulary.tokenizer.vocabulary,
      start,
      encode: ({ ids }) => ids,
    });
  } finally {
    await source.close();
  }
  await remove(partial);
}

/** What stands before each document. */
function startOf({ tokenizer: { bos, eos } }: Vocabulary): number | undefined {
  return bos ?? eos;
}

/** The texts from one on, without start and end tokens. */
async function* texts(
  running: Running,
  { vocabulary, settings, ends, length }: Writer,
  from: number,
  job: Job,
): AsyncGenerator<Int32Array> {
  const start = startOf(vocabulary);
  const session = new Session(running, length);
  const order = permutation(generator(settings.seed), vocabulary.tokenizer.vocabulary);
  const firsts = order.filter((id) => !ends.includes(id));
  const seeds = generator(settings.seed);
  try {
    for (let n = 0; ; n++) {
      const random = generator(Math.floor(2 ** 32 * seeds()));
      if (n < from) continue;
      const round = Math.floor(n / firsts.length);
      const text = [firsts[n % firsts.length]];
      const before = start === undefined ? [] : [start];
      const chosen = settings.greedy[(n + round) % settings.greedy.length];
      let logits = await session.start(Int32Array.from([...before, ...text]), job);
      for (;;) {
        job.signal?.throwIfAborted();
        const { temperature } = settings;
        const id =
          text.length < chosen ? greedy(logits) : race(candidates(logits, { temperature }), random());
        if (ends.includes(id)) break;
        text.push(id);
        if (before.length + text.length >= length) break;
        logits = await session.next(Int32Array.of(id));
      }
      yield Int32Array.from(text);
    }
  } finally {
    session.free();
  }
}

/** A text as the partial file holds it: the number of its ids, then these, 32 bits each. */
function packed(ids: Int32Array): Uint8Array {
  return new Uint8Array(Int32Array.of(ids.length, ...ids).buffer);
}

/** Texts that the partial file holds whole, and their ids; half a text at its end is cut off. */
async function completeTexts(path: string): Promise<{ readonly texts: number; readonly ids: number }> {
  if ((await whatIs(path)) !== "file") return { texts: 0, ids: 0 };
  const source = await openDisk(path);
  let [texts, ids, end] = [0, 0, 0];
  try {
    for await (const length of lengths(source)) {
      texts++;
      ids += length;
      end += 4 * (1 + length);
    }
  } finally {
    await source.close();
  }
  await fs().truncate(path, end);
  return { texts, ids };
}

/** Ids of each whole text, one after the other. */
async function* lengths(source: ByteSource): AsyncGenerator<number> {
  for (let at = 0; at + 4 <= source.byteLength; ) {
    const [length] = await words(source, at, 1);
    at += 4 * (1 + length);
    if (at > source.byteLength) return;
    yield length;
  }
}

/** 32-bit numbers from a byte on. */
async function words(source: ByteSource, from: number, count: number): Promise<Int32Array> {
  return new Int32Array(Uint8Array.from(await source.slice(from, from + 4 * count)).buffer);
}

interface StoredText {
  readonly file: number;
  readonly ids: Int32Array;
  /** As of a document that was read (pieces.ts), of the ids' bytes in place of the text's. */
  readonly end: { readonly place: number; readonly empty: boolean };
}

async function* storedTexts(source: ByteSource): AsyncGenerator<StoredText> {
  let at = 4;
  for await (const length of lengths(source)) {
    const ids = await words(source, at, length);
    const bytes = new Uint8Array(ids.buffer);
    const digest = process.getBuiltinModule("node:crypto").createHash("sha256").update(bytes).digest();
    yield { file: 0, ids, end: { place: placeOf(digest), empty: false } };
    at += 4 * (1 + length);
  }
}
