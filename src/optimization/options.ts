import { z } from "zod";

const positive = z.number().positive();
const share = z.number().min(0).max(1);
/** What is left of a moment after a step; 1 would never let a gradient in. */
const forgetting = z.number().min(0).lt(1);
const warmup = z.int().min(0);

const common = {
  beta1: forgetting.default(0.9),
  beta2: forgetting.default(0.95),
  epsilon: positive.default(1e-8),
  /** Of matrices; norms never decay. */
  weightDecay: z.number().min(0).default(0.1),
  /** Largest norm of a step's gradient; 0 for no limit. */
  clip: z.number().min(0).default(1),
  /** States in memory that the system may write out to a temporary file where it gets short. */
  paged: z.boolean().optional(),
};

/** What a recipe says of its optimizer: its name, and options of its own. Without a name it is AdamW. */
export const optimizerSchema = z
  .discriminatedUnion("name", [
    z.strictObject({ name: z.literal("adamw").optional(), ...common }),
    z.strictObject({ name: z.literal("adamw8"), stableEmbedding: z.boolean().default(true), ...common }),
    z.strictObject({ name: z.literal("adamw4"), stableEmbedding: z.boolean().optional(), ...common }),
    z.strictObject({
      name: z.literal("collage"),
      variant: z.enum(["light", "plus"]).default("plus"),
      ...common,
    }),
    z.strictObject({
      name: z.literal("muon"),
      momentum: forgetting.default(0.95),
      nesterov: z.boolean().default(true),
      iterations: z.int().min(1).max(20).default(5),
      scale: z.enum(["rms", "shape"]).default("rms"),
      rateFactor: positive.default(1),
      ...common,
    }),
  ])
  .prefault({});

export type OptimizerOptions = z.output<typeof optimizerSchema>;

/** What a recipe says of its learning rate: `Schedule` of schedules.ts. */
export const scheduleSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("cosine"), peak: positive, warmup, final: share.default(0.1) }),
  z.strictObject({
    kind: z.literal("trilm"),
    p1: positive,
    p2: positive,
    warmup,
    /** Whether weight decay ends at two thirds of the run. */
    removesDecay: z.boolean().default(true),
  }),
]);
