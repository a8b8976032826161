import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { randomModel } from "../models/random-model.suite.ts";
import { generator } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { generate, promptIds, type Step } from "./generate.ts";
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
      await run(session, tokenizer(), prompt, { temperature: 0, stop: [id] }),
    ]) {
      expect(steps).toMatchObject([{ id, text: "", end: "eos" }]);
    }
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
