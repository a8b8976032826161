import { z } from "zod";

const positive = z.number().positive();
const share = z.number().min(0).max(1);
const warmup = z.int().min(0);

/** What a recipe says of its optimizer. */
export const optimizerSchema = z
  .strictObject({
    beta1: share.default(0.9),
    beta2: share.default(0.95),
    epsilon: positive.default(1e-8),
    /** Of matrices; norms never decay. */
    weightDecay: z.number().min(0).default(0.1),
    /** Largest norm of a step's gradient; 0 for no limit. */
    clip: z.number().min(0).default(1),
  })
  .prefault({});

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
