import { expect, test } from "vitest";
import { InputError } from "../tensor/tensor.ts";
import { parseYaml, type RecipeInput, readRecipe } from "./recipe.ts";
import { forRecord } from "./recipe-file.ts";

const minimal: RecipeInput = {
  family: "float",
  model: { dim: 8, layers: 1, heads: 2, ffn: 16, context: 4 },
  data: { text: "text", heldOut: ["b.txt"], tokenizer: { train: 300 } },
  batch: 4,
  schedule: { kind: "cosine", peak: 0.001, warmup: 2 },
  seed: 1,
  checkpointEvery: 10,
  validateEvery: 10,
};
const read = (change: object, set: string[] = []) => readRecipe({ ...minimal, ...change }, "r.yaml", set);
const failure = (change: object, set: string[] = []) => {
  try {
    read(change, set);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  return "no error";
};

test("defaults are filled in", () => {
  const recipe = read({});
  expect(recipe.model).toMatchObject({ kvHeads: 2, tiedHead: false, normEpsilon: 1e-5, ropeBase: 10000 });
  expect(recipe.optimizer).toEqual({ beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 });
  expect(recipe.schedule).toEqual({ kind: "cosine", peak: 0.001, warmup: 2, final: 0.1 });
  expect(recipe.microBatch).toBe(4);
  expect(recipe.formats).toEqual({ linear: "f16", other: "f16" });
});

test("an unknown key is named, with the nearest known one of its object", () => {
  expect(failure({ bach: 4 })).toBe("r.yaml: unknown key bach; did you mean batch?");
  expect(failure({ model: { ...minimal.model, layer: 3 } })).toContain(
    "unknown key model.layer; did you mean model.layers?",
  );
  expect(failure({ schedule: { ...minimal.schedule, warm: 3 } })).toContain("did you mean schedule.warmup?");
  expect(failure({ optimizer: { weight_decay: 0 } })).toContain("did you mean optimizer.weightDecay?");
  expect(failure({ data: { ...minimal.data, tokenizer: { trian: 300 } } })).toContain(
    "did you mean data.tokenizer.train?",
  );
  expect(failure({}, ["schedule.peek=1"])).toContain(
    "unknown key schedule.peek; did you mean schedule.peak?",
  );
});

test("of a name that there is none of, the nearest and all others are told", () => {
  expect(failure({ family: "trlm" })).toMatch(
    /^r\.yaml: family: there is no trlm; did you mean trilm\? There are float, trilm, bilm, /,
  );
  expect(failure({ optimizer: { name: "adam" } })).toBe(
    "r.yaml: optimizer.name: there is no adam; did you mean adamw? There are adamw, adamw8, adamw4, collage, muon",
  );
  expect(failure({ schedule: { ...minimal.schedule, kind: "cosin" } })).toBe(
    "r.yaml: schedule.kind: there is no cosin; did you mean cosine? There are cosine, trilm",
  );
  const paretoq = (options: object) => failure({ family: "paretoq", options });
  expect(paretoq({ bit: 4 })).toBe(
    "r.yaml: unknown key options.bit; did you mean options.bits? (family paretoq)",
  );
  expect(failure({ family: "trilm", options: { bits: 4 } })).toBe(
    "r.yaml: unknown key options.bits; there are none (family trilm)",
  );
  expect(failure({ family: "continual" })).toBe(
    "r.yaml: options.from is missing; it needs a number (family continual)",
  );
});

test("a wrong value is named by its path", () => {
  expect(failure({ family: "ternary" })).toMatch(/^r\.yaml: family: /);
  expect(failure({ batch: 0 })).toMatch(/^r\.yaml: batch: /);
  expect(failure({ schedule: { kind: "linear" } })).toMatch(/^r\.yaml: schedule\.kind: /);
  expect(failure({ data: { ...minimal.data, tokenizer: {} } })).toContain(
    "data.tokenizer: needs either train or file",
  );
  expect(failure({ model: { ...minimal.model, heads: 3 } })).toContain(
    "model.heads 3 must divide model.dim 8",
  );
  expect(failure({ microBatch: 3 })).toContain("microBatch 3 must divide batch 4");
  expect(read({ family: "trilm" }).formats.linear).toBe("trits"); // tq2_0 needs rows of 256·n
  expect(failure({ family: "trilm", formats: { linear: "tq2_0" } })).toContain("use trits, int2");
  expect(failure({ family: "trilm", formats: { linear: "f16" } })).toContain(
    "does not pack what trilm trains; use tq2_0, trits, int2",
  );
  expect(failure({ formats: { linear: "tq2_0" } })).toContain("does not pack what float trains; use f16");
  expect(failure({ study: "spectra" })).toBe("r.yaml: is the recipe of a study; run it with lowbit study");
  expect(() => readRecipe([], "r.yaml")).toThrow(/^r\.yaml: recipe: /);
  expect(() => readRecipe(null, "r.yaml")).toThrow(/^r\.yaml: recipe: /);
  expect(() => parseYaml("a: [", "r.yaml")).toThrow(/^r\.yaml: needs YAML/);
});

test("overrides reach nested keys, are YAML, and leave the input alone", () => {
  const recipe = read({}, [
    "schedule.peak=0.5",
    "model.tiedHead=true",
    "optimizer.clip=0",
    "data.heldOut=[x, y]",
  ]);
  expect(recipe.schedule).toMatchObject({ peak: 0.5 });
  expect(recipe.model.tiedHead).toBe(true);
  expect(recipe.optimizer.clip).toBe(0);
  expect(recipe.data.heldOut).toEqual(["x", "y"]);
  expect(minimal.schedule).toMatchObject({ peak: 0.001 });
  expect(failure({}, ["data.text=null"])).toContain("data.text: needs a file"); // null takes a key away
  expect(failure({}, ["peak"])).toContain("needs key=value");
});

test("records keep no path of the machine", () => {
  const paths = {
    from: "/home/me/runs/a@40",
    loss: { teacher: "/home/me/teacher", soft: {} },
    data: { ...minimal.data, text: "/home/me/text", tokenizer: { file: "/home/me/tokenizer.json" } },
  };
  const kept = forRecord(read(paths));
  expect(JSON.stringify(kept)).not.toContain("/home");
  expect(kept).toMatchObject({ from: "a@40", loss: { teacher: "teacher" }, data: { text: "text" } });
  expect(forRecord(read({ loss: { teacher: "bundled:float", soft: {} } }))).toMatchObject({
    loss: { teacher: "bundled:float" },
  });
});

test("YAML's own warnings, which have many lines, are not printed", () => {
  const warned: unknown[] = [];
  const listen = (warning: unknown) => warned.push(warning);
  process.on("warning", listen);
  expect(parseYaml("a: !unknown 1", "r.yaml")).toEqual({ a: "1" });
  return new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
    process.off("warning", listen);
    expect(warned).toEqual([]);
  });
});
