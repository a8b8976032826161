import type { Backend } from "../backends/backend.ts";
import { compare, type Divergence } from "../evaluation/divergence.ts";
import { losses } from "../evaluation/loss.ts";
import { documents, type Sequences, windows } from "../evaluation/sequences.ts";
import {
  bitsPerByte,
  type Cluster,
  meanOfClusters,
  pairedDifference,
  perplexity,
} from "../evaluation/statistics.ts";
import { decodeText, readText } from "../files/index.ts";
import { cacheNames } from "../models/kv-cache.ts";
import { baseName, fingerprint, startRecord } from "../record/make.ts";
import type { Fingerprint, Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { backendFor, type Loaded, load, loadDelta, openChecked, type RunChoice } from "./load.ts";

/**
 * Activations and cache are those of the models, not of the reference, so that one command measures what they change.
 * Unless told, activations are float32, and there is no cache.
 */
export interface EvaluateOptions extends RunChoice {
  readonly models: readonly string[];
  /** File to predict, or a text and what to call it. */
  readonly text?: string | { readonly name: string; readonly text: string };
  /** Splits the text into documents, each scored alone; without it the text is one, scored in windows. */
  readonly separator?: string;
  /** Most documents to score. */
  readonly documents?: number;
  /** Tokens that a model sees at once. Default: the smallest context among the models. */
  readonly context?: number;
  /** Tokens between the beginnings of windows. Default: the context. */
  readonly stride?: number;
  /** Model to compare every other with, token by token: the source of compressed ones. */
  readonly reference?: string;
  /** Folders of deltas over the one model, which is loaded once for all of them; each is measured as it is with the base. */
  readonly deltas?: readonly string[];
  /** Tokenizer's file, for models that come without one. */
  readonly tokenizer?: string;
}

/** How well a model predicts a text. */
export interface TextResult {
  /** Predicted tokens. */
  readonly tokens: number;
  /** Mean of −ln p, nats per token. */
  readonly loss: number;
  /** Over documents or windows, whose tokens are correlated; null when there is only one. */
  readonly lossStandardError: number | null;
  readonly perplexity: number;
  /** Of the bytes of text that the predicted tokens stand for. */
  readonly bitsPerByte: number;
  readonly bytes: number;
  /** Documents or windows. */
  readonly clusters: number;
}

/** Loss of a model minus that of another on the same tokens, paired by document or window; nats per token. */
export interface DifferenceResult {
  readonly against: string;
  readonly loss: number;
  readonly standardError: number | null;
  /** Ends of the 95 % interval; null when there is only one cluster. */
  readonly low: number | null;
  readonly high: number | null;
}

export interface EvaluatedModel extends Fingerprint {
  readonly text: TextResult;
  readonly difference?: DifferenceResult;
  readonly divergence?: Divergence & { readonly against: string };
}

/** How the text was cut, so that others can measure the same. */
export type Protocol =
  | {
      readonly kind: "windows";
      readonly context: number;
      readonly stride: number;
      readonly startToken: boolean;
    }
  | {
      readonly kind: "documents";
      readonly context: number;
      readonly separator: string;
      readonly startToken: boolean;
    };

export interface EvaluateResult {
  readonly models: readonly EvaluatedModel[];
  readonly reference?: EvaluatedModel;
  readonly protocol: Protocol;
}

/** One model's losses, for comparing others with. */
interface Measured {
  readonly name: string;
  readonly cut: Sequences;
  readonly clusters: readonly Cluster[];
  readonly divergence?: Divergence;
}

/**
 * Loss, perplexity and bits per byte of models on a text; with several models,
 * the paired difference of each to the reference (or else to the first); with
 * a reference, the divergence of their predictions from its own. At most the
 * reference and one other model are in memory at once, beside a base with one of its deltas.
 */
export async function evaluate(options: EvaluateOptions, job: Job = {}): Promise<Record<EvaluateResult>> {
  check(options);
  const { name, bytes } = await textOf(options.text);
  const text = decodeText(name, bytes);
  const specs = options.reference === undefined ? options.models : [options.reference, ...options.models];
  const context = options.context ?? (await smallestContext(specs, options, job));
  const finish = startRecord("evaluate", {
    ...options,
    models: options.models.map(baseName),
    ...(options.deltas === undefined ? {} : { deltas: options.deltas.map(baseName) }),
    text: name,
    context,
    ...(options.reference === undefined ? {} : { reference: baseName(options.reference) }),
    ...(options.tokenizer === undefined ? {} : { tokenizer: baseName(options.tokenizer) }),
  });

  const backend = await backendFor(options, job);
  try {
    const plan: Plan = { options, context, text, backend, job };
    const reference = options.reference === undefined ? undefined : await loadFor(plan, options.reference);
    try {
      const { result, startToken } = await evaluateAll(plan, reference);
      const protocol: Protocol =
        options.separator === undefined
          ? { kind: "windows", context, stride: options.stride ?? context, startToken }
          : { kind: "documents", context, separator: options.separator, startToken };
      return finish(backend, { data: [await fingerprint(name, bytes)] }, { ...result, protocol });
    } finally {
      await reference?.free();
    }
  } finally {
    backend.dispose();
  }
}

/** What all models of one evaluation share. */
interface Plan {
  readonly options: EvaluateOptions;
  readonly context: number;
  readonly text: string;
  readonly backend: Backend;
  readonly job: Job;
}

function loadFor(plan: Plan, spec: string, choice: RunChoice = {}): Promise<Loaded> {
  const { backend, job } = plan;
  return load(spec, backend, loadOptions(plan, choice), job);
}

function loadOptions({ options, context }: Plan, { activations, cache }: RunChoice) {
  return { tokenizer: options.tokenizer, positions: context, activations, cache };
}

async function evaluateAll(plan: Plan, reference: Loaded | undefined) {
  const { options } = plan;
  const referenceMeasured = reference && (await measure(plan, reference));
  const against = reference && referenceMeasured && { loaded: reference, cut: referenceMeasured.cut };
  let base = referenceMeasured;
  let startToken = true;
  const models: EvaluatedModel[] = [];
  async function add(loaded: Loaded): Promise<void> {
    startToken = loaded.tokenizer.bos !== undefined;
    const measured = await measure(plan, loaded, against);
    models.push({
      ...(await loaded.fingerprint()),
      text: textResult(measured),
      ...(base ? differenceFrom(plan, base, measured) : {}),
      ...(reference && measured.divergence
        ? { divergence: { against: reference.file.name, ...measured.divergence } }
        : {}),
    });
    base ??= measured;
  }
  for (const spec of options.models) {
    const loaded = await loadFor(plan, spec, options);
    try {
      await add(loaded);
      for (const delta of options.deltas ?? []) {
        const over = await loadDelta(loaded, delta, loadOptions(plan, options), plan.job);
        try {
          await add(over);
        } finally {
          await over.free();
        }
      }
    } finally {
      await loaded.free();
    }
  }
  const result = {
    models,
    ...(reference && referenceMeasured
      ? { reference: { ...(await reference.fingerprint()), text: textResult(referenceMeasured) } }
      : {}),
  };
  return { result, startToken };
}

/** Losses of a model on the text; beside a reference, also its divergence from it. */
async function measure(
  plan: Plan,
  loaded: Loaded,
  reference?: { readonly loaded: Loaded; readonly cut: Sequences },
): Promise<Measured> {
  const name = loaded.file.name;
  if (plan.context > loaded.model.config.context) {
    throw new InputError(
      `evaluate: a context of ${plan.context} is more than the ${loaded.model.config.context} tokens of ${name}; lower --context`,
    );
  }
  const cut = await cutText(plan, loaded.tokenizer);
  if (!reference) return { name, cut, clusters: await losses(loaded, cut.all, plan.job) };
  if (!sameTokens(cut, reference.cut)) {
    throw new InputError(
      `evaluate: ${name} and its reference ${reference.loaded.file.name} cut this text into different tokens`,
    );
  }
  return { name, cut, ...(await compare(reference.loaded, loaded, cut.all, plan.job)) };
}

function cutText({ options, context, text, job }: Plan, tokenizer: Tokenizer): Promise<Sequences> {
  if (options.separator === undefined)
    return windows(text, tokenizer, context, options.stride ?? context, job);
  return documents(text, tokenizer, context, options.separator, options.documents, job);
}

function textResult({ cut, clusters }: Measured): TextResult {
  const { mean, standardError } = meanOfClusters(clusters);
  return {
    tokens: cut.tokens,
    loss: mean,
    lossStandardError: standardError ?? null,
    perplexity: perplexity(mean),
    bitsPerByte: bitsPerByte(mean * cut.tokens, cut.bytes),
    bytes: cut.bytes,
    clusters: clusters.length,
  };
}

function differenceFrom(
  { options, job }: Plan,
  base: Measured,
  measured: Measured,
): { difference?: DifferenceResult } {
  if (!sameTokens(base.cut, measured.cut)) {
    job.onWarning?.(
      `${measured.name} cuts the text into other tokens than ${base.name}; compare their bits per byte`,
    );
    return {};
  }
  const {
    mean,
    standardError = null,
    low = null,
    high = null,
  } = pairedDifference(measured.clusters, base.clusters);
  if (options.reference !== undefined && high !== null && high < 0) {
    job.onWarning?.(
      `${measured.name} predicts this text better than the reference ${base.name}, by ${(-mean).toFixed(4)} nats a token, ` +
        "more than chance explains; if it was made from that one, was it with this text?",
    );
  }
  return { difference: { against: base.name, loss: mean, standardError, low, high } };
}

function sameTokens(a: Sequences, b: Sequences): boolean {
  if (a.all.length !== b.all.length) return false;
  return a.all.every(
    ({ ids }, i) => ids.length === b.all[i].ids.length && ids.every((id, t) => id === b.all[i].ids[t]),
  );
}

function check({
  models,
  deltas,
  text,
  separator,
  documents,
  context,
  stride,
  cache,
}: EvaluateOptions): void {
  if (models.length === 0) throw new InputError("evaluate: needs a model, got none");
  if (deltas && models.length > 1) {
    throw new InputError(
      `evaluate: deltas are over one model, got ${models.length}; give each as BASE+DELTA`,
    );
  }
  if (context !== undefined && (!Number.isInteger(context) || context < 1)) {
    throw new InputError(`context: needs a whole number from 1, got ${context}`);
  }
  if (cache !== undefined && !cacheNames.includes(cache)) {
    throw new InputError(`cache: needs one of ${cacheNames.join(", ")}, got ${JSON.stringify(cache)}`);
  }
  if (text === undefined) throw new InputError("evaluate: needs a text to predict; give a file with --text");
  if (documents !== undefined && separator === undefined) {
    throw new InputError("evaluate: --documents needs --separator, which says where documents end");
  }
  if (stride !== undefined && separator !== undefined) {
    throw new InputError("evaluate: --stride is for running text; documents are scored alone, leave it out");
  }
}

async function textOf(
  text: EvaluateOptions["text"],
): Promise<{ name: string; bytes: Uint8Array<ArrayBuffer> }> {
  if (typeof text === "string") return { name: baseName(text), bytes: await readText(text) };
  return { name: text!.name, bytes: new TextEncoder().encode(text!.text) };
}

async function smallestContext(
  specs: readonly string[],
  options: EvaluateOptions,
  job: Job,
): Promise<number> {
  let smallest = Number.POSITIVE_INFINITY;
  const quiet = { ...job, onWarning: undefined }; // they come when the models are loaded
  for (const spec of specs) {
    const { file, model } = await openChecked(spec, options, quiet);
    await file.close();
    smallest = Math.min(smallest, model.config.context);
  }
  return smallest;
}
