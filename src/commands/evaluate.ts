import { type Command, Option } from "commander";
import { differenceText } from "../evaluation/words.ts";
import type { Record } from "../record/record.ts";
import { type EvaluateOptions, type EvaluateResult, evaluate as evaluateModels } from "../verbs/evaluate.ts";
import {
  execute,
  MODEL,
  runOptions,
  type SharedOptions,
  several,
  sharedOptions,
  TOKENIZER,
  wholeNumber,
} from "./command.ts";
import { table } from "./table.ts";

export function evaluate(program: Command): void {
  const command = program
    .command("evaluate")
    .description("loss, perplexity, bits per byte; divergence from a reference model")
    .argument("<models...>", `each a ${MODEL}`)
    .requiredOption("--text <file>", "text to predict")
    .option("--separator <text>", "splits the text into documents, each scored alone")
    .option("--documents <n>", "most documents to score", wholeNumber(1))
    .option("--reference <model>", "compare every model with this one, token by token")
    .option(
      "--delta <folder>",
      "a delta over the model, which is loaded once; may be given again",
      several(String),
    )
    .option("--context <n>", "tokens that a model sees at once", wholeNumber(1))
    .option("--stride <n>", "tokens between the beginnings of windows (default: the context)", wholeNumber(1))
    .option("--tokenizer <file>", TOKENIZER)
    .addOption(new Option("--tasks <names>", "benchmarks, comma separated").hideHelp());
  runOptions(command, { activations: "float", cache: "none" });
  sharedOptions(command).action((models: string[], { delta: deltas, ...options }: Given) => {
    if (options.tasks !== undefined)
      command.error("error: --tasks comes in a later version; use --text", { exitCode: 2 });
    return execute(
      options,
      (job) => evaluateModels({ ...withoutOutput(options), models, deltas }, job),
      show,
    );
  });
}

type Given = SharedOptions &
  Omit<EvaluateOptions, "models" | "deltas"> & { readonly tasks?: string; readonly delta?: string[] };

/** Options of a verb: those of the command line without the ones that only say how to print. */
function withoutOutput<T extends SharedOptions>({ json, quiet, ...rest }: T) {
  return rest;
}

function show(record: Record<EvaluateResult>): string {
  const { protocol, models, reference } = record;
  const all = reference ? [reference, ...models] : models;
  const compared = all.some((m) => m.difference || m.divergence);
  const header = ["model", "tokens", "loss ± error", "perplexity", "bits/byte"];
  if (compared) header.push("Δ loss [95 %]", "KL", "KL 99 %", "same top");
  const rows = all.map((m) => {
    const { tokens, loss, lossStandardError, perplexity, bitsPerByte } = m.text;
    const error = lossStandardError === null ? "" : ` ± ${lossStandardError.toFixed(4)}`;
    const row = [
      m.name,
      String(tokens),
      `${loss.toFixed(5)}${error}`,
      perplexity.toFixed(3),
      bitsPerByte.toFixed(4),
    ];
    if (!compared) return row;
    const d = m.difference;
    return [
      ...row,
      d ? differenceText(d.loss, d.low, d.high) : "",
      m.divergence ? m.divergence.klMean.toPrecision(3) : "",
      m.divergence ? m.divergence.kl99.toPrecision(3) : "",
      m.divergence ? `${(100 * m.divergence.sameTop1).toFixed(1)} %` : "",
    ];
  });
  const cut =
    protocol.kind === "windows"
      ? `windows of ${protocol.context} tokens, stride ${protocol.stride}`
      : `documents alone, cut to ${protocol.context} tokens`;
  const { activations, cache } = record.options as EvaluateOptions;
  const rounded = activations === "int8" ? "; activations in int8" : "";
  const kept = rounded + (cache === undefined ? "" : `; keys and values kept in ${cache}`);
  return `${table(header, rows)}\n\n${cut}${kept}${protocol.startToken ? ", start token first" : ""}; loss in nats per token`;
}
