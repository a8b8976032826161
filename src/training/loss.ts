import { z } from "zod";
import { checkSameVocabulary } from "../generation/draft-model.ts";
import type { Operations } from "../kernels/index.ts";
import { softRules } from "../kernels/soft-loss.ts";
import type { Model, Span, Weights } from "../models/model.ts";
import type { Running } from "../models/run.ts";
import { InputError, type Tensor } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";

/** What a term counts in the sum. */
const share = z.number().positive().default(1);

/** What a recipe's model learns from; default: the text's own next tokens. */
export const lossSchema = z
  .strictObject({
    /** Share of −ln p of the text's next tokens. Default: 1 without a teacher, 0 with one. */
    labels: z.number().min(0).optional(),
    /** A model of the same vocabulary, as commands name models; a path starts from the recipe's own folder. */
    teacher: z.string().min(1).optional(),
    /** How far the teacher's distribution of the next token is; `k` likeliest words for the rule `topk`. */
    soft: z
      .strictObject({ rule: z.enum(softRules).default("forward"), k: z.int().min(1).optional(), share })
      .refine(
        ({ rule, k }) => (rule === "topk") === (k !== undefined),
        "k belongs to the rule topk, which needs it",
      )
      .optional(),
    /** How far the directions of the teacher's hidden states before each block are, as a sum over blocks. */
    states: z.strictObject({ share }).optional(),
  })
  .refine(
    ({ teacher, soft, states }) => (teacher === undefined) === (soft === undefined && states === undefined),
    "a teacher needs soft or states, and these need a teacher",
  )
  .refine(({ teacher, labels }) => teacher !== undefined || labels !== 0, "labels 0 needs a teacher")
  .prefault({});

export type LossOptions = z.output<typeof lossSchema>;

/** A model at work in training. */
export interface Learner {
  readonly model: Model;
  readonly weights: Weights;
  readonly rope: Tensor;
}

/** Sequences as a learner reads them: ids and targets (tokens) i32. */
export interface Sequences {
  readonly ids: Tensor;
  readonly targets: Tensor;
  readonly at: Span;
}

/** How blocks are computed: one after the other, or each as a segment that is computed again in the backward pass. */
export type RunBlock = (body: () => Tensor) => Tensor;

/** What is learned from, with the teacher where there is one. */
export interface Lesson {
  readonly loss: LossOptions;
  readonly teacher?: Running;
}

/**
 * What a learner is to make small, per token -> (tokens).
 *
 *   labels·(−ln q_target) + soft.share·D(p, q) + states.share·Σ_blocks ‖a/‖a‖ − b/‖b‖‖²
 *
 * q and a (tokens, dim) are the learner's distribution and its states before each block, p and b the teacher's; D as
 * in kernels/soft-loss.ts. Without a teacher −ln q_target alone. The teacher gets no gradient. Where a target is −1
 * only the labels' term is 0: who adds the losses up leaves these tokens out.
 */
export function tokenLosses(
  ops: Operations,
  { model, weights, rope }: Learner,
  { ids, targets, at }: Sequences,
  runBlock: RunBlock,
  { loss, teacher }: Lesson = { loss: {} },
): Tensor {
  const states: Tensor[] = [];
  let x = model.embed(ops, ids, weights);
  for (let i = 0; i < model.config.layers; i++) {
    const input = x;
    states.push(input);
    x = runBlock(() => model.block(ops, i, input, weights, at, rope));
  }
  const hidden = model.finalNorm(ops, x, weights);
  const head = weights.get(model.headWeight)!;

  const terms: Term[] = [];
  const labels = loss.labels ?? (teacher ? 0 : 1);
  if (labels > 0) terms.push({ share: labels, losses: ops.crossEntropy(hidden, head, targets) });
  if (teacher) {
    const taught = lesson(teacher, ids, at, loss);
    if (loss.soft) {
      const { rule, k = 0, share } = loss.soft;
      const logits = ops.linear(hidden, head);
      const losses = ops.softLoss(logits, taught.logits!, softRules.indexOf(rule), k);
      terms.push({ share, losses });
    }
    for (const [i, state] of taught.states.entries()) {
      terms.push({ share: loss.states!.share, losses: ops.matchStates(states[i], state) });
    }
  }
  return sumOf(ops, terms);
}

interface Term {
  readonly share: number;
  readonly losses: Tensor;
}

/** Σ share·losses */
function sumOf(ops: Operations, [first, ...rest]: readonly Term[]): Tensor {
  let { share, losses } = first;
  for (const term of rest) {
    losses = ops.combine(losses, term.losses, share, term.share);
    share = 1;
  }
  return share === 1 ? losses : ops.combine(losses, losses, share / 2, share / 2);
}

/** What a teacher says of the same sequences; all else that it computes is freed here. */
function lesson(
  { model, backend, weights, rope }: Running,
  ids: Tensor,
  at: Span,
  { soft, states }: LossOptions,
): { logits?: Tensor; states: Tensor[] } {
  const kept: Tensor[] = [];
  const rest = backend.scope(() => {
    let x = model.embed(backend, ids, weights);
    for (let i = 0; i < model.config.layers; i++) {
      const input = x;
      x = backend.scope(() => model.block(backend, i, input, weights, at, rope));
      if (states) kept.push(input);
      else backend.free(input);
    }
    const logits =
      soft && backend.linear(model.finalNorm(backend, x, weights), weights.get(model.headWeight)!);
    return logits ? [logits, ...kept] : kept;
  });
  return { ...(soft ? { logits: rest[0] } : {}), states: kept };
}

/** A model beside the one that is trained, on the same backend. */
export interface Teacher {
  readonly running: Running;
  readonly tokenizer: Tokenizer;
}

/** Throws an InputError where a teacher cannot teach a model: another vocabulary, or sizes that do not go together. */
export function checkTeacher(
  teacher: Teacher,
  learner: { readonly model: Model; readonly tokenizer: Tokenizer },
  loss: LossOptions,
): void {
  checkSameVocabulary(learner.tokenizer, teacher.tokenizer, "teacher");
  checkTeacherSizes(teacher.running.model, learner.model, loss);
}

/**
 * Throws an InputError for a teacher of fewer words or positions than the model's, and for hidden states of another
 * width or number of blocks.
 */
export function checkTeacherSizes(teacher: Model, learner: Model, loss: LossOptions): void {
  const [theirs, ours] = [teacher.config, learner.config];
  const needs = (fits: boolean, what: string) => {
    if (!fits) throw new InputError(`teacher: ${what}`);
  };
  needs(
    theirs.vocabulary === ours.vocabulary,
    `has ${theirs.vocabulary} rows in its output matrix, the model ${ours.vocabulary}; take a teacher of the same vocabulary`,
  );
  needs(
    theirs.context >= ours.context,
    `reads ${theirs.context} tokens, the model ${ours.context}; set model.context to at most ${theirs.context}`,
  );
  needs(
    loss.states === undefined || (theirs.dim === ours.dim && theirs.layers === ours.layers),
    `has ${theirs.layers} blocks of width ${theirs.dim}, the model ${ours.layers} of ${ours.dim}; loss.states needs the same, loss.soft does not`,
  );
  needs(
    (loss.soft?.k ?? 1) <= ours.vocabulary,
    `loss.soft.k ${loss.soft?.k} is more than the ${ours.vocabulary} words`,
  );
}
