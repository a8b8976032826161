import type { Command } from "commander";
import { compressions } from "../methods/index.ts";
import type { Record } from "../record/record.ts";
import { settingsOf } from "../training/recipe.ts";
import {
  type CompressOptions,
  type CompressResult,
  compress as compressModel,
  type DryRunResult,
} from "../verbs/compress.ts";
import {
  execute,
  MODEL,
  realNumber,
  type SharedOptions,
  sharedOptions,
  TOKENIZER,
  wholeNumber,
} from "./command.ts";
import { duration, size } from "./progress.ts";
import { table } from "./table.ts";

export function compress(program: Command): void {
  const command = program
    .command("compress")
    .description("a smaller model: its linear layers in few bits")
    .argument("<model>", MODEL)
    .requiredOption("-o, --output <folder>", "folder to write")
    .option("--method <name>", `${compressions.join(", ")} (default: gptq with --calibration, rtn without)`)
    .option("--format <name>", "of the linear layers: int8, int4-g64, int2-offset-g32, tq2_0, …")
    .option("--group <n>", "weights that share a scale: 32, 64 or 128", wholeNumber(1))
    .option(
      "--bits <b>",
      "instead of a format: 8, 6, 4, 3 or 2, with groups and a clip search; of reallm: of its codes",
      realNumber(0),
    )
    .option("--size <bytes>", "instead of a format: the most bits whose weights fit", wholeNumber(1))
    .option("--others <format>", "of embedding and head (default: 16 bits)")
    .option("--clip", "search for the range of each group that has the least error")
    .option("--recipe <file>", "YAML file that holds these options")
    .option("--calibration <file>", "text whose activations gptq sees")
    .option("--samples <n>", "windows of calibration text (default: 128)", wholeNumber(1))
    .option(
      "--context <n>",
      "tokens of a window (default: the model's context, 2048 at most)",
      wholeNumber(1),
    )
    .option("--seed <n>", "which windows of the calibration text (default: 0)", wholeNumber(0))
    .option("--damping <share>", "gptq: added to the diagonal of H (default: 0.01)", realNumber(0))
    .option("--act-order", "gptq: columns with the largest activations first")
    .option("--static-groups", "gptq: groups fitted to the weights as they were")
    .option("--true-sequential", "within a block, too, later layers see earlier ones rounded")
    .option("--set <key=value...>", "a method's own options: --method reallm --set rank=8 length=4")
    .option(
      "--mix <key=value...>",
      "each matrix in one of several ways under one budget: --mix bits=3.25 'of=[{bits: 2},{bits: 3},{bits: 4}]'",
    )
    .option(
      "--tune [key=value...]",
      "tune each block after it was compressed: --tune epochs=8 rank=4 parts=[scales]",
    )
    .option("--tokenizer <file>", TOKENIZER)
    .option("--dry-run", "write nothing: compress two matrices of each shape, and say what all would take");
  type Given = SharedOptions &
    Omit<CompressOptions, "model" | "dryRun" | "mix"> & {
      readonly dryRun?: boolean;
      readonly set?: readonly string[];
      readonly mix?: readonly string[];
      readonly tune?: true | readonly string[];
    };
  sharedOptions(command).action((model: string, options: Given) => {
    const { json, quiet, set, mix, tune, dryRun, ...settings } = options;
    const own = () => (set === undefined ? {} : { options: settingsOf(set) });
    const mixed = () => (mix === undefined ? {} : { mix: settingsOf(mix) as CompressOptions["mix"] });
    const tuning = () => (tune === undefined ? {} : { tuning: tune === true ? {} : settingsOf(tune) });
    const chosen = () => ({ ...settings, ...own(), ...mixed(), ...tuning(), model });
    return dryRun
      ? execute(options, (job) => compressModel({ ...chosen(), dryRun }, job), showDryRun)
      : execute(options, (job) => compressModel(chosen(), job), show);
  });
}

function show(record: Record<CompressResult>): string {
  const rows = record.layers.map((layer) => [
    layer.name,
    layer.method,
    layer.format,
    layer.bits.toFixed(3),
    layer.relativeError.toExponential(2),
    layer.errorOf,
  ]);
  const { before, after } = record.bytes;
  const { linear, total } = record.bitsPerWeight;
  return [
    table(["layer", "method", "format", "bits", "relative error", "of"], rows),
    ...shapesOf(record.layers),
    "",
    `${size(before)} -> ${size(after)}, ${ratio(before, after)}, in ${duration(record.seconds)}`,
    `bits per weight: ${linear.toFixed(3)} in linear layers (${uses(record.split)}), ${total.toFixed(3)} in all`,
  ].join("\n");
}

/** Which shape won where, by how much of the next one's error, and what was left out. */
function shapesOf(layers: CompressResult["layers"]): string[] {
  const rows = layers.flatMap(({ name, tried = [] }) => {
    const [best, next] = [...tried].sort((a, b) => a.error - b.error);
    if (!best) return [];
    const ahead = next ? `${(100 * (1 - best.error / next.error)).toFixed(1)} % less than ${next.name}` : "";
    return [[name, best.name, best.bits.toFixed(3), ahead, String(tried.length)]];
  });
  if (rows.length === 0) return [];
  const left = new Set(layers.flatMap(({ left = [] }) => left));
  return [
    "",
    table(["layer", "shape", "bits", "error", "tried"], rows),
    ...(left.size > 0 ? ["", `Left out: ${[...left].join("; ")}`] : []),
  ];
}

function uses(split: CompressResult["split"]): string {
  return Object.entries(split)
    .map(([use, bits]) => `${use} ${bits.toFixed(3)}`)
    .join(", ");
}

function showDryRun(record: Record<DryRunResult>): string {
  const rows = record.shapes.map(({ shape, matrices, format, bits, split, seconds }) => [
    shape.join("×"),
    String(matrices),
    format,
    bits.toFixed(3),
    uses(split),
    seconds.toPrecision(2),
  ]);
  const { before, after } = record.bytes;
  const { linear, total } = record.bitsPerWeight;
  return [
    table(["shape", "matrices", "made of", "bits", "of which", "seconds each"], rows),
    "",
    `${size(before)} -> ${size(after)}, ${ratio(before, after)}`,
    `bits per weight: ${linear.toFixed(3)} in linear layers, ${total.toFixed(3)} in all`,
    `${duration(record.compressionSeconds)} for the matrices, without passes over calibration text and tuning; nothing was written`,
  ].join("\n");
}

function ratio(before: number, after: number): string {
  return after <= before
    ? `${(before / after).toFixed(2)} times smaller`
    : `${(after / before).toFixed(2)} times larger`;
}
