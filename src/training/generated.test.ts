import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openBackend } from "../backends/index.ts";
import { hiddenStates, logits } from "../models/run.ts";
import type { Job } from "../record/record.ts";
import { evaluate } from "../verbs/evaluate.ts";
import { load } from "../verbs/load.ts";
import { planTraining } from "../verbs/plan-training.ts";
import { train } from "../verbs/train.ts";
import { findWriter, generateTokens } from "./generated.ts";
import { type RecipeInput, readRecipe } from "./recipe.ts";
import { openTokens } from "./token-file.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-generated-"));
const at = (name: string) => join(folder, name);
const text = writeTinyText(folder);
const backend = await openBackend("reference");
afterAll(() => {
  backend.dispose();
  rmSync(folder, { recursive: true, force: true });
});
beforeAll(() =>
  train({ recipe: { ...tinyRecipe(text, "float"), steps: 40 }, out: at("writer"), backend: "reference" }),
);

type Generate = NonNullable<RecipeInput["data"]["generate"]>;

/** A recipe that learns from what the writer writes. */
function recipeOf(generate: Generate, more: Partial<RecipeInput> = {}): RecipeInput {
  const { data: _, formats: __, ...rest } = tinyRecipe(text, "float");
  return {
    ...rest,
    family: "llm-qat",
    from: at("writer"),
    loss: { teacher: at("writer"), soft: {} },
    data: { generate, heldOut: { share: 0.2 } },
    ...more,
  };
}

/** Each text that is written, start token first. */
async function written(name: string, generate: Generate, job: Job = {}): Promise<number[][]> {
  const writer = (await findWriter(readRecipe(recipeOf(generate), "r"), ".", {}))!;
  const path = at(name);
  const about = { key: "k", sources: [], tokenizer: "t" };
  await generateTokens(path, about, writer, () => load(writer.spec, backend), job);
  const stored = (await openTokens(path, "k"))!;
  try {
    const all = stored.select(() => true);
    const ids = [...(await all.slice(0, all.length))];
    return Array.from({ length: all.documents }, (_, d) => ids.slice(all.start(d), all.start(d + 1)));
  } finally {
    await stored.close();
  }
}

test("a text is a start token, a first token, its likeliest followers, then draws from the model's distribution", async () => {
  // So cold that every draw takes the likeliest too.
  const texts = await written("cold", { tokens: 200, temperature: 1e-6, seed: 4 });
  const warm = await written("warm", { tokens: 200, seed: 4 });
  expect(texts.flat().length).toBe(200);
  const loaded = await load(at("writer"), backend);
  try {
    const { bos, eos } = loaded.tokenizer;
    const best = async (ids: number[]) => {
      const hidden = hiddenStates(loaded, Int32Array.from(ids));
      const all = (await backend.read(logits(loaded, hidden))) as Float32Array;
      const last = all.subarray((ids.length - 1) * loaded.model.config.vocabulary);
      return last.indexOf(Math.max(...last));
    };
    for (const [n, ids] of texts.slice(0, -1).entries()) {
      expect(ids[0]).toBe(bos);
      for (let t = 2; t < ids.length; t++) expect(ids[t]).toBe(await best(ids.slice(0, t)));
      if (ids.length < 16) expect(await best(ids)).toBe(eos); // over before the context is full
      // The first tokens of the warm text are not drawn: one more for each next text, with the one that is enumerated.
      const same = 1 + [3, 4, 5][n % 3];
      expect(warm[n]?.slice(0, same)).toEqual(ids.slice(0, Math.min(same, warm[n].length)));
    }
    expect(warm.flat()).not.toEqual(texts.flat());
    const firsts = texts.map(([, first]) => first);
    expect(new Set(firsts).size).toBe(firsts.length);
    expect(firsts).not.toContain(eos);
  } finally {
    await loaded.free();
  }
});

test("the texts are a function of the seed; more of them begin with the same", async () => {
  const texts = await written("some", { tokens: 120, seed: 1 });
  expect(await written("again", { tokens: 120, seed: 1 })).toEqual(texts);
  const more = await written("more", { tokens: 150, seed: 1 });
  expect(more.slice(0, texts.length - 1)).toEqual(texts.slice(0, -1));
  expect(await written("other", { tokens: 120, seed: 2 })).not.toEqual(texts);
});

test("writing that was interrupted goes on where it was, also from half a text", async () => {
  const whole = await written("straight", { tokens: 300 });
  const stop = new AbortController();
  const onProgress = ({ done }: { done: number }) => {
    if (done > 100) stop.abort(new Error("stopped"));
  };
  await expect(written("stopped", { tokens: 300 }, { signal: stop.signal, onProgress })).rejects.toThrow(
    "stopped",
  );
  truncateSync(at("stopped.partial"), 4 * 50 + 2);
  const told: number[] = [];
  const goesOn = await written("stopped", { tokens: 300 }, { onProgress: ({ done }) => told.push(done) });
  expect(goesOn).toEqual(whole);
  expect(told[0]).toBeGreaterThan(17); // not from the beginning
  expect(readdirSync(folder)).not.toContain("stopped.partial");
});

test("a model learns from what another wrote: nothing else is read, and the record says from what", async () => {
  const recipe = recipeOf({ tokens: 1200 });
  const plan = await planTraining({
    recipe: { ...recipe, steps: undefined },
    trial: false,
    backend: "reference",
  });
  expect(plan.steps).toBe(Math.floor(Math.floor((960 - 1) / 16) / 4));
  const record = await train({ recipe, out: at("free"), backend: "reference" });
  expect(record.generated).toMatchObject({ tokens: 1200, sha256: expect.stringMatching(/^[0-9a-f]{64}$/) });
  expect(record.data.map(({ name }) => name)).toEqual(["writer"]);
  expect(JSON.stringify(record.options)).not.toContain(folder);
  expect(record.validation.tokens).toBeGreaterThan(16);

  // The same model elsewhere is the same text and the same run; another seed is another.
  cpSync(at("writer"), at("moved/writer"), { recursive: true });
  const elsewhere = recipeOf({ tokens: 1200, model: at("moved/writer") });
  expect(
    (await train({ recipe: elsewhere, out: at("free"), backend: "reference", resume: true })).identity,
  ).toEqual(record.identity);
  await expect(
    train({
      recipe: recipeOf({ tokens: 1200, seed: 5 }),
      out: at("free"),
      backend: "reference",
      resume: true,
    }),
  ).rejects.toThrow("begun with another recipe (");
});

test("a text that is read may be what measures", async () => {
  const data = { generate: { tokens: 1200 }, heldOut: { text: join(text, "held.txt") } };
  const { validation, data: prints } = await train({
    recipe: recipeOf(data.generate, { data }),
    out: at("measured"),
    backend: "reference",
  });
  expect(prints.map(({ name }) => name)).toEqual(["writer", "held.txt"]);
  const model = at("measured");
  const record = await evaluate({
    models: [model],
    text: join(text, "held.txt"),
    context: 16,
    backend: "reference",
  });
  expect(record.models[0].text.tokens - validation.tokens).toBeLessThan(16);
  // And beside a text that is read to learn from, too.
  const { validation: own } = await train({
    recipe: {
      ...tinyRecipe(text, "float"),
      data: {
        text: join(text, "a.txt"),
        heldOut: { text: join(text, "held.txt") },
        tokenizer: { file: at("writer/tokenizer.json") },
      },
    },
    out: at("read"),
    backend: "reference",
  });
  expect(own.tokens).toBe(validation.tokens);
});

test("what cannot be written is one line", async () => {
  const failure =
    (data: object, more: object = {}) =>
    () =>
      readRecipe({ ...recipeOf({ tokens: 9 }), data, ...more }, "r");
  const share = { share: 0.5 };
  expect(failure({ heldOut: share })).toThrow("r: data.text: needs a file, a folder or a data set");
  expect(failure({ generate: { tokens: 9 }, heldOut: share, text: "a" })).toThrow(
    "r: data.text: leave it out where generate says who writes",
  );
  expect(failure({ generate: { tokens: 9 }, heldOut: ["a"] })).toThrow(
    "r: data.heldOut: of a generated text it is a share",
  );
  expect(failure({ generate: { tokens: 9 }, heldOut: share, tokenizer: { train: 300 } })).toThrow(
    "r: data.tokenizer: leave it out",
  );
  const alone = recipeOf({ tokens: 9 }, { from: undefined, loss: {} });
  await expect(train({ recipe: alone, out: at("none"), backend: "reference" })).rejects.toThrow(
    "data.generate: needs a model that writes; give data.generate.model, loss.teacher or from",
  );
  const few = recipeOf({ tokens: 9 });
  await expect(train({ recipe: few, out: at("few"), backend: "reference" })).rejects.toThrow(
    /^data\.(heldOut|text): /,
  );
  appendFileSync(at("none.txt"), "");
  await expect(
    train({ recipe: recipeOf({ tokens: 9, model: at("none.txt") }), out: at("none"), backend: "reference" }),
  ).rejects.toThrow(/^none\.txt: /);
});
