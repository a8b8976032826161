import { parse } from "yaml";
import { z } from "zod";
import { nearestName } from "../tensor/nearest-name.ts";
import { InputError } from "../tensor/tensor.ts";

const count = z.int().min(1);
const positive = z.number().positive();
const share = z.number().min(0).max(1);

const schema = z.strictObject({
  /** float: plain weights. trilm: linear layers ternary in the forward pass, straight-through in the backward pass. */
  family: z.enum(["float", "trilm"]),
  model: z.strictObject({
    dim: count,
    layers: count,
    heads: count,
    /** Default: as many as `heads`. */
    kvHeads: count.optional(),
    ffn: count,
    context: count,
    tiedHead: z.boolean().default(false),
    normEpsilon: positive.default(1e-5),
    ropeBase: positive.default(10000),
  }),
  data: z.strictObject({
    /** A text file, or a folder of them; relative to the recipe's own folder. */
    text: z.string().min(1),
    /** Names of the files that are kept for validation. */
    heldOut: z.array(z.string()).min(1),
    /** Either a vocabulary size to train one on the training text, or a tokenizer.json. */
    tokenizer: z
      .strictObject({ train: count.optional(), file: z.string().min(1).optional() })
      .refine(
        ({ train, file }) => (train === undefined) !== (file === undefined),
        "needs either train or file",
      ),
  }),
  /** Sequences of `context` tokens in a step. */
  batch: count,
  /** Sequences computed at once; a divisor of `batch`. Default: all of them. */
  microBatch: count.optional(),
  /** Default: as many as one pass over the text has. */
  steps: count.optional(),
  optimizer: z
    .strictObject({
      beta1: share.default(0.9),
      beta2: share.default(0.95),
      epsilon: positive.default(1e-8),
      /** Of matrices; norms never decay. */
      weightDecay: z.number().min(0).default(0.1),
      /** Largest norm of a step's gradient; 0 for no limit. */
      clip: z.number().min(0).default(1),
    })
    .prefault({}),
  schedule: z.discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("cosine"),
      peak: positive,
      warmup: z.int().min(0),
      final: share.default(0.1),
    }),
    z.strictObject({ kind: z.literal("trilm"), p1: positive, p2: positive, warmup: z.int().min(0) }),
  ]),
  seed: z.int(),
  /** Steps between checkpoints, and between validations. */
  checkpointEvery: count,
  validateEvery: count,
  /** Formats of the finished model: of its linear layers, and of everything else. */
  formats: z
    .strictObject({
      linear: z.enum(["f32", "f16", "bf16", "tq2_0", "tq1_0", "int2"]).optional(),
      other: z.enum(["f32", "f16", "bf16"]).default("f16"),
    })
    .prefault({}),
});

/** A recipe as a person writes it: defaults may be left out. */
export type RecipeInput = z.input<typeof schema>;
type Checked = z.output<typeof schema>;

/** A recipe with every default filled in; `steps` alone stays open until the text is known. */
export interface Recipe extends Omit<Checked, "model" | "microBatch" | "formats"> {
  readonly model: Checked["model"] & { readonly kvHeads: number };
  readonly microBatch: number;
  readonly formats: { readonly linear: string; readonly other: string };
}

/** The object in a recipe's YAML. */
export function parseYaml(text: string, where: string): unknown {
  try {
    return parse(text, { logLevel: "error" }); // its warnings are many lines; the schema says what is wrong
  } catch (error) {
    throw new InputError(`${where}: needs YAML; ${(error as Error).message.split("\n", 1)[0]}`);
  }
}

/**
 * Checks a recipe and fills in its defaults. `set` holds overrides like
 * `schedule.peak=0.002`, whose values are YAML. An InputError names the first
 * key that is wrong; of an unknown one also the nearest known one.
 */
export function readRecipe(input: unknown, where: string, set: readonly string[] = []): Recipe {
  const raw: unknown = structuredClone(input);
  for (const assignment of set) assign(raw, assignment);
  const checked = schema.safeParse(raw);
  if (!checked.success) {
    const { issues } = checked.error;
    // A misspelt key is also a missing one; its name says more.
    const telling = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
    throw new InputError(`${where}: ${problem(telling)}`);
  }
  const recipe = checked.data;
  const { model, batch, microBatch = batch, formats, family } = recipe;
  const kvHeads = model.kvHeads ?? model.heads;
  const needs = (fits: boolean, what: string) => {
    if (!fits) throw new InputError(`${where}: ${what}`);
  };
  needs(model.dim % model.heads === 0, `model.heads ${model.heads} must divide model.dim ${model.dim}`);
  needs(
    (model.dim / model.heads) % 2 === 0,
    `model.dim / model.heads must be even, got ${model.dim / model.heads}`,
  );
  needs(model.heads % kvHeads === 0, `model.kvHeads ${kvHeads} must divide model.heads ${model.heads}`);
  needs(batch % microBatch === 0, `microBatch ${microBatch} must divide batch ${batch}`);

  const ternary = ["tq2_0", "tq1_0", "int2"];
  const linear = formats.linear ?? (family === "trilm" ? "tq2_0" : "f16");
  if (family === "float") {
    needs(
      !ternary.includes(linear),
      `formats.linear ${linear} cannot hold a float model; train it in f16 and compress it`,
    );
  } else {
    needs(
      ternary.includes(linear),
      `formats.linear ${linear} does not pack what ${family} trains; use ${ternary.join(", ")}`,
    );
    const fits = model.dim % 256 === 0 && model.ffn % 256 === 0;
    needs(
      linear === "int2" || fits,
      `formats.linear ${linear} needs rows of 256·n weights, dim is ${model.dim} and ffn ${model.ffn}; use int2`,
    );
  }
  return { ...recipe, model: { ...model, kvHeads }, microBatch, formats: { ...formats, linear } };
}

function assign(raw: unknown, assignment: string): void {
  const equals = assignment.indexOf("=");
  if (equals < 1) throw new InputError(`--set ${assignment}: needs key=value, like schedule.peak=0.002`);
  if (typeof raw !== "object" || raw === null) return; // the schema says what is wrong with it
  const path = assignment.slice(0, equals).split(".");
  const value = parseYaml(assignment.slice(equals + 1), `--set ${assignment}`);
  let at = raw as Record<string, unknown>;
  for (const key of path.slice(0, -1)) {
    if (!Object.hasOwn(at, key) || typeof at[key] !== "object" || at[key] === null) at[key] = {};
    at = at[key] as Record<string, unknown>;
  }
  at[path[path.length - 1]] = value;
}

function problem(issue: z.core.$ZodIssue): string {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0];
    const nearest = nearestName(key, keysAt(schema, path));
    return `unknown key ${[...path, key].join(".")}; did you mean ${[...path, nearest].join(".")}?`;
  }
  const where = path.join(".") || "recipe";
  if (issue.code === "invalid_type" && issue.message.endsWith("received undefined")) {
    return `${where} is missing; it needs ${issue.expected === "object" ? "keys of its own" : `a ${issue.expected}`}`;
  }
  return `${where}: ${issue.message}`;
}

/** Keys that the schema knows below a path; of alternatives, those of all of them. */
function keysAt(at: z.core.$ZodType, path: readonly string[]): string[] {
  if (at instanceof z.ZodOptional || at instanceof z.ZodDefault || at instanceof z.ZodPrefault) {
    return keysAt(at.unwrap(), path);
  }
  if (at instanceof z.ZodDiscriminatedUnion) return at.options.flatMap((option) => keysAt(option, path));
  if (!(at instanceof z.ZodObject)) return [];
  if (path.length === 0) return Object.keys(at.shape);
  return keysAt(at.shape[path[0]], path.slice(1));
}
