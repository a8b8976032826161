import { type Command, Option } from "commander";
import type { Record } from "../record/record.ts";
import { type ConvertOptions, type ConvertResult, convert as convertModel } from "../verbs/convert.ts";
import { execute, MODEL, outputOptions, type SharedOptions, TOKENIZER } from "./command.ts";
import { duration, size } from "./progress.ts";
import { table } from "./table.ts";

export function convert(program: Command): void {
  const command = program
    .command("convert")
    .description("the same model in another container: GGUF, Hugging Face folder or llama2.c")
    .argument("<model>", MODEL)
    .requiredOption("-o, --output <path>", "file or folder to write")
    .addOption(
      new Option("--to <container>", "(default: by the ending: .gguf, .bin, else a folder)").choices([
        "gguf",
        "hf",
        "llama2c",
      ]),
    )
    .option(
      "--type <name>",
      "of the matrices: f32, f16, bf16; of GGUF also q8_0, q4_0, q4_k, tq2_0, … (default: as they are)",
    )
    .option("--force", "replace a file that is there")
    .option("--tokenizer <file>", TOKENIZER);
  outputOptions(command).action((model: string, options: SharedOptions & Omit<ConvertOptions, "model">) => {
    const { json: _, quiet: __, ...settings } = options;
    return execute(options, (job) => convertModel({ ...settings, model }, job), show);
  });
}

function show({ tensors, bytes, container, files, seconds }: Record<ConvertResult>): string {
  const changed = tensors.filter(({ from, to, note }) => from !== to || note !== undefined);
  const rows = changed.map(({ name, from, to, lossless, note }) => [
    name,
    from,
    to,
    lossless ? "lossless" : "rounded",
    note ?? "",
  ]);
  const rounded = tensors.filter(({ lossless }) => !lossless).length;
  return [
    ...(rows.length === 0 ? [] : [table(["tensor", "from", "to", "", ""], rows), ""]),
    `${container.from} -> ${container.to}: ${files.join(", ")}`,
    `${size(bytes.before)} -> ${size(bytes.after)} in ${duration(seconds)}; ` +
      (rounded === 0
        ? "every weight is the same number"
        : `${rounded} of ${tensors.length} tensors were rounded`),
  ].join("\n");
}
