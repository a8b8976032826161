import { parse } from "yaml";
import { z } from "zod";
import { fillsRow } from "../formats/format.ts";
import { formatByName } from "../formats/index.ts";
import { trainedMethods, tunedMethods } from "../methods/index.ts";
import type { TrainedMethod, TrainedRounding, TunedMethod, Tuning } from "../methods/method.ts";
import { optimizerSchema, scheduleSchema } from "../optimization/options.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError } from "../tensor/tensor.ts";
import { dataSchema } from "./data.ts";
import { lossSchema } from "./loss.ts";
import { snapshotsSchema } from "./snapshots.ts";
import { spikesSchema } from "./spikes.ts";

const count = z.int().min(1);
const positive = z.number().positive();
const families = ["float", ...Object.keys(trainedMethods), ...Object.keys(tunedMethods)] as [
  string,
  ...string[],
];

const schema = z.strictObject({
  /** `float` for plain weights, or a way to train or to tune of src/methods, by name. */
  family: z.enum(families),
  /** What the family may be told, as its file says. */
  options: z.record(z.string(), z.unknown()).optional(),
  /** A model, or `RUN@STEP` of another run, whose weights this one starts from; default: random ones of the seed. */
  from: z.string().min(1).optional(),
  /** Take over the optimizer's states too, from a snapshot that kept them; default: they begin at zero. */
  keepOptimizer: z.boolean().optional(),
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
  data: dataSchema,
  loss: lossSchema,
  /**
   * The only tensors that learn. Names, `*` for any text: `*.down_proj.weight`; or so many linear layers, those whose
   * rounding hurts the model of `from` most. Default: all.
   */
  only: z
    .union(
      [
        z.array(z.string().min(1)).min(1),
        z.strictObject({
          sensitive: count,
          /** Windows of the training text on which each layer is measured. */
          windows: count.default(16),
          /** How a layer is rounded to be measured: `int4-g64`. Default: as the family does it, when the run ends. */
          format: z.string().optional(),
        }),
      ],
      { error: "needs a list of names, or { sensitive: a number of layers }" },
    )
    .optional(),
  /** Sequences of `context` tokens in a step. */
  batch: count,
  /** Sequences computed at once; a divisor of `batch`. Gradients are added up in other parts: other bits. Default: all. */
  microBatch: count.optional(),
  /** Default: as many as one pass over the text has. */
  steps: count.optional(),
  /** Of the products of large matrices; bf16 is float32 where the processor has no such instruction. */
  precision: z.enum(["float32", "bf16"]).default("float32"),
  /** Keep only the inputs of blocks and compute the rest again in the backward pass: less memory, a third more time, the same bits. */
  recompute: z.boolean().default(false),
  optimizer: optimizerSchema,
  schedule: scheduleSchema,
  seed: z.int().default(1),
  /** Steps between checkpoints, and between validations. */
  checkpointEvery: count.default(100),
  validateEvery: count.default(100),
  /** Models kept in the middle of the run; default: none. */
  snapshots: snapshotsSchema.optional(),
  /** Go back to a checkpoint where the loss jumps; default: only stop where it is no number, or lost. */
  spikes: spikesSchema.optional(),
  /** Steps between measurements of the weights (weights.jsonl). Default: about a hundred in a run, fewer if they took time. */
  measureEvery: count.optional(),
  /** Formats of the finished model: of its linear layers (default: the family's own), and of everything else. */
  formats: z
    .strictObject({
      linear: z.string().optional(),
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

/** What a recipe's family trains of a stored model; undefined for families that train models of floats. */
export function tuningOf({ family, options }: Pick<Recipe, "family" | "options">): Tuning | undefined {
  const method = tunedMethodOf(family);
  return method?.with(method.options.parse(options));
}

function tunedMethodOf(family: string): TunedMethod | undefined {
  return Object.hasOwn(tunedMethods, family) ? tunedMethods[family as keyof typeof tunedMethods] : undefined;
}

/** How a recipe's family rounds its weights in training; undefined for `float`, and for a family that tunes. */
export function roundingOf({
  family,
  options,
}: Pick<Recipe, "family" | "options">): TrainedRounding | undefined {
  if (!Object.hasOwn(trainedMethods, family)) return undefined;
  const method: TrainedMethod = trainedMethods[family as keyof typeof trainedMethods];
  return method.with(method.options.parse(options));
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
  if (typeof raw === "object" && raw !== null && Object.hasOwn(raw, "study")) {
    throw new InputError(`${where}: is the recipe of a study; run it with lowbit study`);
  }
  for (const assignment of set) assign(raw, assignment);
  const recipe = checkedBy(schema, raw, { where, whole: "recipe" });
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
  needs(
    !recipe.keepOptimizer || recipe.from !== undefined,
    "keepOptimizer: needs from, the snapshot whose states are kept",
  );
  needs(batch % microBatch === 0, `microBatch ${microBatch} must divide batch ${batch}`);

  const { train, file } = recipe.data.tokenizer;
  needs(
    recipe.data.generate !== undefined || (train ?? file ?? recipe.from) !== undefined,
    "data.tokenizer: needs either train or file (or from, a model that has one)",
  );
  checkOnly(recipe, needs);
  const tuned = tunedMethodOf(family);
  if (tuned) {
    const own = checkedBy(tuned.options, recipe.options ?? {}, {
      where,
      above: ["options"],
      after: ` (family ${family})`,
    });
    needs(
      formats.linear === undefined,
      `formats.linear: family ${family} keeps the formats of the model that it tunes; leave it out`,
    );
    needs(
      !recipe.keepOptimizer,
      `keepOptimizer: family ${family} begins with states of its own; leave it out`,
    );
    needs(
      recipe.only === undefined || Array.isArray(recipe.only),
      `only.sensitive: family ${family} needs a list of names`,
    );
    return {
      ...recipe,
      options: own as Checked["options"],
      model: { ...model, kvHeads },
      microBatch,
      formats: { ...formats, linear: AS_STORED },
    };
  }
  const method: TrainedMethod | undefined = trainedMethods[family as keyof typeof trainedMethods];
  // Some options have no default, so that none at all is as wrong as an empty object.
  const options =
    method &&
    checkedBy(method.options, recipe.options ?? {}, {
      where,
      above: ["options"],
      after: ` (family ${family})`,
    });
  needs(method !== undefined || recipe.options === undefined, "options: family float has none");

  const packs = method?.with(options).formats ?? ["f16", "bf16", "f32"];
  const fits = (format: string) =>
    [model.dim, model.ffn].every((cols) => fillsRow(formatByName(format), cols));
  const linear = formats.linear ?? packs.find(fits) ?? packs[0];
  needs(
    packs.includes(linear),
    `formats.linear ${linear} does not pack what ${family} trains; use ${packs.join(", ")}`,
  );
  needs(
    fits(linear),
    `formats.linear ${linear} cannot hold rows of ${model.dim} (dim) and ${model.ffn} (ffn) weights; ${packs.some(fits) ? `use ${packs.filter(fits).join(", ")}` : "change the sizes"}`,
  );
  return { ...recipe, model: { ...model, kvHeads }, microBatch, formats: { ...formats, linear } };
}

function checkOnly(
  { only, from, family, model }: Checked,
  needs: (fits: boolean, what: string) => void,
): void {
  if (only === undefined || Array.isArray(only)) return;
  const { sensitive, format: name } = only;
  const layers = 7 * model.layers;
  needs(sensitive <= layers, `only.sensitive ${sensitive} is more than the ${layers} linear layers`);
  needs(from !== undefined, "only.sensitive: needs from, a trained model whose layers are measured");
  needs(
    family !== "float" || name !== undefined,
    "only.sensitive: family float rounds nothing; give only.format",
  );
  if (name === undefined) return;
  const format = formatByName(name);
  const fits = [model.dim, model.ffn].every((cols) => fillsRow(format, cols));
  needs(fits, `only.format ${name} cannot hold rows of ${model.dim} (dim) and ${model.ffn} (ffn) weights`);
}

/** In the place of a format, where matrices keep theirs. */
const AS_STORED = "as stored";

/** What `--set key=value` assignments say, as one object. */
export function settingsOf(assignments: readonly string[]): { [key: string]: unknown } {
  const settings = {};
  for (const assignment of assignments) assign(settings, assignment);
  return settings;
}

function assign(raw: unknown, assignment: string): void {
  const equals = assignment.indexOf("=");
  if (equals < 1) throw new InputError(`--set ${assignment}: needs key=value, like schedule.peak=0.002`);
  if (typeof raw !== "object" || raw === null) return; // the schema says what is wrong with it
  const path = assignment.slice(0, equals).split(".");
  const value = parseYaml(assignment.slice(equals + 1), `--set ${assignment}`);
  let at = raw as Record<string, unknown>;
  for (const key of path.slice(0, -1)) {
    const inner = Object.hasOwn(at, key) ? at[key] : undefined;
    if (typeof inner !== "object" || inner === null || Array.isArray(inner)) at[key] = {};
    at = at[key] as Record<string, unknown>;
  }
  if (value === null)
    delete at[path[path.length - 1]]; // as in a recipe that extends another
  else at[path[path.length - 1]] = value;
}
