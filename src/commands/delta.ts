import type { Command } from "commander";
import type { Record } from "../record/record.ts";
import { settingsOf } from "../training/recipe.ts";
import { type DeltaOptions, type DeltaResult, delta as makeDelta } from "../verbs/delta.ts";
import { execute, MODEL, realNumber, type SharedOptions, sharedOptions, wholeNumber } from "./command.ts";
import { duration, size } from "./progress.ts";
import { table } from "./table.ts";

export function delta(program: Command): void {
  const command = program
    .command("delta")
    .description("what fine-tuning changed, in few bits: a folder that is opened as BASE+FOLDER")
    .argument("<model>", `the fine-tuned model: ${MODEL}`)
    .requiredOption("--base <model>", "what it was made from")
    .requiredOption("-o, --output <folder>", "folder to write")
    .option("--method <name>", "bitdelta, delta-come, or one of compress (default: bitdelta)")
    .option("--format <name>", "of rtn and gptq: int4-g64, int2-g32, …")
    .option("--calibration <file>", "text whose activations are seen, and on which scales are tuned")
    .option("--samples <n>", "windows of it (default: 128)", wholeNumber(1))
    .option("--seed <n>", "which windows (default: 0)", wholeNumber(0))
    .option("--steps <n>", "bitdelta: steps that tune the scales (default: 200 with text)", wholeNumber(0))
    .option("--rate <share>", "bitdelta: their step, as a share of a scale (default: 0.02)", realNumber(0))
    .option("--batch <n>", "bitdelta: sequences in a step (default: 4)", wholeNumber(1))
    .option("--length <n>", "bitdelta: tokens of a sequence (default: 128)", wholeNumber(1))
    .option("--set <key=value...>", "the method's own options: --set scales=rows, --set bits=2");
  type Given = SharedOptions & Omit<DeltaOptions, "model"> & { readonly set?: readonly string[] };
  sharedOptions(command).action((model: string, options: Given) => {
    const { json, quiet, set, ...settings } = options;
    const own = () => (set === undefined ? {} : { options: settingsOf(set) });
    return execute(options, (job) => makeDelta({ ...settings, ...own(), model }, job), show);
  });
}

function show({ matrices, whole, bytes, distilled, seconds }: Record<DeltaResult>): string {
  const rows = matrices.map((m) => [m.name, m.format, m.bits.toFixed(3), m.relativeError.toExponential(2)]);
  const wholes = whole.reduce((sum, tensor) => sum + tensor.bytes, 0);
  return [
    table(["matrix", "delta", "bits", "relative error"], rows),
    "",
    ...(whole.length > 0
      ? [`${whole.length} other tensors differ and are stored whole: ${size(wholes)}`]
      : []),
    ...(distilled
      ? [
          `mean square of the logits' difference: ${distilled.before.toPrecision(3)} -> ${distilled.after.toPrecision(3)}`,
        ]
      : []),
    `${size(bytes.before)} -> ${size(bytes.after)}, ${(bytes.before / bytes.after).toFixed(2)} times smaller, in ${duration(seconds)}`,
  ].join("\n");
}
