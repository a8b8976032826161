import { describe, expect, test, vi } from "vitest";
import { openReference } from "../backends/reference.ts";
import { randomModel } from "../models/random-model.suite.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Progress } from "../record/record.ts";
import { generator } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { checkSameVocabulary, draftModel } from "./draft-model.ts";
import { type GenerateOptions, generate, promptIds, type Step, shifted } from "./generate.ts";
import { promptLookup } from "./prompt-lookup.ts";
import { Session } from "./session.ts";

const backend = openReference();
const running = randomModel(backend, 1);
const random = generator(2);
const ids = (n: number) => Int32Array.from({ length: n }, () => Math.floor(40 * random()));

describe("Session", () => {
  const fresh = async (sequence: Int32Array) => {
    const session = new Session(running);
    const logits = await session.start(sequence);
    session.free();
    return logits;
  };

  test("token by token, in one go, or in chunks: the same logits", async () => {
    const sequence = ids(290);
    const whole = await fresh(sequence); // more than one chunk
    const session = new Session(running);
    let logits = await session.start(sequence.subarray(0, 3));
    for (const id of sequence.subarray(3)) logits = await session.next(Int32Array.of(id));
    expect(logits).toEqual(whole);
    session.free();
  });

  test("a beginning that is held already is not computed again, and changes nothing", async () => {
    const session = new Session(running);
    const first = ids(20);
    await session.start(first);
    const second = Int32Array.of(...first.subarray(0, 12), 7, 8, 9);
    expect(await session.start(second)).toEqual(await fresh(second));
    expect(await session.start(second)).toEqual(await fresh(second)); // all held: the last is fed again
    expect(await session.start(first.subarray(0, 5))).toEqual(await fresh(first.subarray(0, 5)));
    session.free();
  });

  test("logits after each of several tokens are those of one after the other", async () => {
    const session = new Session(running);
    const sequence = ids(12);
    await session.start(sequence.subarray(0, 4));
    const rows = await session.each(sequence.subarray(4));
    expect(session.length).toBe(12);
    for (const [n, row] of rows.entries()) expect(row).toEqual(await fresh(sequence.subarray(0, 5 + n)));
    session.truncate(6);
    expect(await session.next(sequence.subarray(6, 8))).toEqual(rows[3]);
    session.free();
  });

  test("makes rotary positions as it needs them, and frees them", async () => {
    const { model } = running;
    const before = backend.bytesInUse;
    const small = { ...running, rope: backend.keep(backend.upload(ropeTable(model.config, 2))) };
    const session = new Session(small);
    const sequence = ids(290);
    await session.start(sequence.subarray(0, 3));
    expect(await session.start(sequence)).toEqual(await fresh(sequence));
    session.free();
    backend.free(small.rope);
    expect(backend.bytesInUse).toBe(before);
  });

  test("names a prompt that does not fit and an id that the model does not have", async () => {
    const session = new Session(running, 8);
    await expect(session.start(ids(9))).rejects.toThrow(
      "a prompt of 9 tokens does not fit into a context of 8",
    );
    await expect(session.start(Int32Array.of(40))).rejects.toThrow(
      "token 40 is outside the model's vocabulary of 40",
    );
    await expect(session.start(new Int32Array())).rejects.toThrow("at least one token");
    session.free();
  });

  test("a signal aborted within a prompt ends it between two blocks, and the session goes on as before", async () => {
    let clock = 0;
    vi.spyOn(performance, "now").mockImplementation(() => (clock += 100)); // it is always time for a pause
    let blocks = 0;
    const controller = new AbortController();
    const { model } = running;
    const block: typeof model.block = (...call) => {
      if (++blocks === 3) setImmediate(() => controller.abort(new Error("enough")));
      return model.block(...call);
    };
    const before = backend.bytesInUse;
    const session = new Session({ ...running, model: { ...model, block } });
    const sequence = ids(290);
    await expect(session.start(sequence, { signal: controller.signal })).rejects.toThrow("enough");
    expect(blocks).toBe(3); // of two for each of two chunks
    expect(session.length).toBe(256);
    expect(await session.start(sequence)).toEqual(await fresh(sequence));
    session.free();
    expect(backend.bytesInUse).toBe(before);
    vi.restoreAllMocks();
  });

  test("says how far it has read a long prompt", async () => {
    const seen: Progress[] = [];
    const session = new Session(running);
    await session.start(ids(290), { onProgress: (progress) => seen.push(progress) });
    expect(seen).toEqual([{ task: "read", done: 256, total: 290, unit: "tokens" }]);
    session.free();
  });

  test("frees all that it made", async () => {
    const before = backend.bytesInUse;
    const session = new Session(running);
    await session.start(ids(280));
    await session.next(Int32Array.of(1));
    session.free();
    expect(backend.bytesInUse).toBe(before);
  });
});

/** 40 tokens: 0 starts and 1 ends a text, the others are the bytes of a euro sign, one after the other, and letters. */
function tokenizer(options: { bos?: number; eos?: number } = {}): Tokenizer {
  const euro = [0xe2, 0x82, 0xac];
  const bytes = (id: number) =>
    id === options.bos || id === options.eos
      ? new Uint8Array()
      : Uint8Array.of(id < 30 ? euro[id % 3] : 60 + id);
  return {
    vocabulary: 40,
    ...options,
    encode: (text) => Int32Array.from(text, (letter) => letter.charCodeAt(0) - 60),
    bytes,
    decode: (list) => new TextDecoder().decode(Uint8Array.from(Array.from(list, (id) => bytes(id)[0]))),
    piece: String,
  };
}

async function run(
  session: Session,
  ...rest: Parameters<typeof generate> extends [Session, ...infer R] ? R : never
) {
  const steps: Step[] = [];
  for await (const step of generate(session, ...rest)) steps.push(step);
  return steps;
}

describe("generate", () => {
  const prompt = Int32Array.of(31, 32);

  test("makes as many tokens as asked for and says why it stopped", async () => {
    const session = new Session(running);
    const steps = await run(session, tokenizer(), prompt, { tokens: 12, seed: 3 });
    expect(steps.length).toBe(12);
    expect(steps.map(({ end }) => end)).toEqual([...new Array(11).fill(undefined), "tokens"]);
    expect(await run(session, tokenizer(), prompt, { tokens: 0 })).toEqual([]);
    session.free();
  });

  test("the text of all steps is the text of all ids, whole characters only", async () => {
    const session = new Session(running);
    for (let seed = 0; seed < 20; seed++) {
      const steps = await run(session, tokenizer(), prompt, { tokens: 30, seed });
      const text = steps.map((step) => step.text).join("");
      expect(text).toBe(tokenizer().decode(steps.map(({ id }) => id)));
    }
    session.free();
  });

  test("ends at the end token, at a start token, and at ids that the caller names", async () => {
    const session = new Session(running);
    const [{ id }] = await run(session, tokenizer(), prompt, { temperature: 0, tokens: 1 });
    for (const steps of [
      await run(session, tokenizer({ eos: id }), prompt, { temperature: 0 }),
      await run(session, tokenizer({ bos: id }), prompt, { temperature: 0 }),
      await run(session, { ...tokenizer(), ends: [id] }, prompt, { temperature: 0 }),
    ]) {
      expect(steps).toMatchObject([{ id, text: "", end: "eos" }]);
    }
    const stopped = await run(session, tokenizer(), prompt, { temperature: 0, stopTokens: [id] });
    expect(stopped).toMatchObject([{ id, text: "", end: "stop" }]);
    session.free();
  });

  test("a stop text ends it, and nothing of that text is shown in any step", async () => {
    const session = new Session(running);
    const whole = (await run(session, tokenizer(), prompt, { tokens: 60, seed: 4 }))
      .map(({ text }) => text)
      .join("");
    for (const from of [0, 7, 20]) {
      const stop = whole.slice(from, from + 3);
      const steps = await run(session, tokenizer(), prompt, { tokens: 60, seed: 4, stop: ["never", stop] });
      expect(steps.map(({ text }) => text).join("")).toBe(whole.slice(0, whole.indexOf(stop)));
      expect(steps[steps.length - 1].end).toBe("stop");
    }
    await expect(run(session, tokenizer(), prompt, { stop: [""] })).rejects.toThrow("must not be empty");
    session.free();
  });

  test("with a shift it goes on: first tokens and the newer half of the others, as a fresh session reads them", async () => {
    const session = new Session(running, 10);
    const options = { temperature: 0, tokens: 14, shift: { keep: 1 } };
    const steps = await run(session, tokenizer(), prompt, options);
    expect(steps.map(({ end }) => end)).toEqual([...new Array(13).fill(undefined), "tokens"]);
    // Full after 8 tokens: the first is kept, and 5 of the other 9.
    const all = [...prompt, ...steps.map(({ id }) => id)];
    const kept = shifted(all.slice(0, 10), 1, 10);
    expect(kept).toEqual([all[0], ...all.slice(5, 10)]);
    const after = await run(session, tokenizer(), Int32Array.from(kept), { temperature: 0, tokens: 4 });
    expect(after.map(({ id }) => id)).toEqual(all.slice(10, 14));
    session.free();
  });

  test("ends where the context is full", async () => {
    const session = new Session(running, 10);
    const steps = await run(session, tokenizer(), prompt, { seed: 1 });
    expect(steps.length).toBe(8);
    expect(steps[7].end).toBe("context");
    session.free();
  });

  test("the same seed gives the same text, another one another", async () => {
    const session = new Session(running);
    const texts = [];
    for (const seed of [5, 5, 6])
      texts.push((await run(session, tokenizer(), prompt, { tokens: 30, seed })).map((s) => s.id));
    expect(texts[1]).toEqual(texts[0]);
    expect(texts[2]).not.toEqual(texts[0]);
    session.free();
  });

  test("an aborted signal ends it before the next token", async () => {
    const session = new Session(running);
    const controller = new AbortController();
    let made = 0;
    const aborted = (async () => {
      for await (const _ of generate(session, tokenizer(), prompt, {}, { signal: controller.signal })) {
        if (++made === 4) controller.abort(new Error("enough"));
      }
    })();
    await expect(aborted).rejects.toThrow("enough");
    expect(made).toBe(4);
    session.free();
  });
});

test("a prompt starts with the start token where there is one", () => {
  expect([...promptIds(tokenizer({ bos: 0 }), "Z")]).toEqual([0, 30]);
  expect([...promptIds(tokenizer(), "Z")]).toEqual([30]);
  expect([...promptIds(tokenizer({ bos: 0 }), "")]).toEqual([0]);
});

describe("speculation", () => {
  const prompt = Int32Array.of(31, 32, 31, 32, 33, 31, 32);
  const other = randomModel(backend, 5);
  const drafters = {
    "prompt lookup": () => promptLookup(),
    "the model itself": () => draftModel(running, { context: 300, vocabulary: 40 }),
    "another model": () => draftModel(other, { context: 300, vocabulary: 40 }),
    "a model with a shorter context": () => draftModel(other, { context: 20, vocabulary: 40 }),
  };
  const all: GenerateOptions[] = [
    { temperature: 0 },
    { seed: 1 },
    { seed: 2, temperature: 0.7, topK: 12, topP: 0.9, minP: 0.01, typical: 0.95 },
    { temperature: 0, repetitionPenalty: 1.3, presencePenalty: 0.2, dryMultiplier: 1, penaltyWindow: 5 },
    { seed: 3, frequencyPenalty: 0.3, dryMultiplier: 0.8, logitBias: [[31, 2]] },
    { seed: 4, stop: ["["], temperature: 2 },
    { seed: 5, stopTokens: [35] },
    { temperature: 0, tokens: 200, shift: { keep: 2 } },
    { seed: 6, tokens: 90, shift: { keep: 0 } },
  ];

  test.each(Object.entries(drafters))("%s: every step is as without", async (_, drafter) => {
    const before = backend.bytesInUse;
    for (const [n, options] of all.entries()) {
      const settings = { tokens: 45, ...options };
      const plain = new Session(running, 40);
      const expected = await run(plain, tokenizer(), prompt, settings);
      plain.free();
      const session = new Session(running, 40);
      const speculation = { drafter: drafter(), guesses: 1 + (n % 7) };
      const steps = await run(session, tokenizer(), prompt, settings, {}, speculation);
      speculation.drafter.free();
      session.free();
      expect(steps.map(({ guessed: _, ...step }) => step)).toEqual(expected);
      const { drafted, accepted } = steps[steps.length - 1].guessed!;
      expect(accepted).toBeLessThanOrEqual(drafted);
    }
    expect(backend.bytesInUse).toBe(before);
  });

  test("a model's own guesses all come true, and are counted", async () => {
    for (const options of [{ temperature: 0 }, { seed: 8, repetitionPenalty: 1.2 }]) {
      const session = new Session(running);
      const speculation = { drafter: draftModel(running, { context: 300, vocabulary: 40 }) };
      const steps = await run(session, tokenizer(), prompt, { ...options, tokens: 33 }, {}, speculation);
      // 33 = 1 + 4·8: the prompt gives one token, each reading of seven guesses eight.
      expect(steps[steps.length - 1].guessed).toEqual({ drafted: 28, accepted: 28 });
      speculation.drafter.free();
      session.free();
    }
  });

  test("prompt lookup takes what followed the longest end that was there before, the last time", async () => {
    const draft = (sequence: number[], most = 3) =>
      promptLookup().draft(sequence, most, undefined as never, {});
    expect(await draft([1, 2, 3, 4, 1, 2, 3])).toEqual([4, 1, 2]);
    expect(await draft([1, 2, 9, 5, 2, 8, 1, 2])).toEqual([9, 5, 2]);
    expect(await draft([2, 7, 2, 8, 2])).toEqual([8, 2]);
    expect(await draft([1, 2, 3])).toEqual([]);
    expect(await draft([1])).toEqual([]);
    expect(await draft([4, 4, 4, 4], 2)).toEqual([4]);
  });

  test("guesses out of range are refused", async () => {
    const session = new Session(running);
    const speculation = { drafter: promptLookup(), guesses: 8 };
    await expect(run(session, tokenizer(), prompt, {}, {}, speculation)).rejects.toThrow(
      "from 1 to 7, got 8",
    );
    session.free();
  });

  test("a signal aborted while a draft is made ends it", async () => {
    const controller = new AbortController();
    const session = new Session(running);
    const drafter = draftModel(running, { context: 300, vocabulary: 40 });
    const aborting = {
      ...drafter,
      draft: (...call: Parameters<typeof drafter.draft>) => {
        controller.abort(new Error("enough"));
        return drafter.draft(...call);
      },
    };
    const job = { signal: controller.signal };
    await expect(run(session, tokenizer(), prompt, {}, job, { drafter: aborting })).rejects.toThrow("enough");
    drafter.free();
    session.free();
  });
});

test("a draft of another vocabulary is refused", () => {
  expect(() => checkSameVocabulary(tokenizer(), tokenizer())).not.toThrow();
  expect(() => checkSameVocabulary(tokenizer(), { ...tokenizer(), vocabulary: 41 })).toThrow(
    "draft: has 41 tokens, the model 40; take a draft of the same vocabulary",
  );
  const piece = (id: number) => (id === 7 ? "x" : String(id));
  expect(() => checkSameVocabulary(tokenizer(), { ...tokenizer(), piece })).toThrow(
    'token 7 is "x", the model\'s is "7"',
  );
});
