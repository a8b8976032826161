import type { Command } from "commander";
import { type GenerateOptions, generate as generateText } from "../verbs/generate.ts";
import { execute, type SharedOptions, samplingOptions, sharedOptions, wholeNumber } from "./command.ts";

export function generate(program: Command): void {
  const command = program
    .command("generate")
    .description("continue a text")
    .argument("<model>", "folder, llama2.c .bin, bundled:NAME or hf:OWNER/NAME[@REVISION]")
    .argument("[prompt]", "text to continue", "")
    .option("--tokens <n>", "most tokens to make (default: 256)", wholeNumber(1));
  samplingOptions(command).option(
    "--seed <n>",
    "same seed, same text (default: drawn)",
    wholeNumber(0, 2 ** 32 - 1),
  );
  sharedOptions(command.option("--tokenizer <file>", "tok*.bin, *.model or tokenizer.json")).action(
    async (
      model: string,
      prompt: string,
      options: SharedOptions & Omit<GenerateOptions, "model" | "prompt">,
    ) => {
      const { json, quiet, ...settings } = options;
      // The prompt is shown when its continuation comes, not before a model that turns out to be missing.
      let before = prompt;
      await execute(
        options,
        (job, clear) => {
          const onText = (text: string) => {
            clear();
            process.stdout.write(before + text);
            before = "";
          };
          return generateText({ ...settings, model, prompt }, json ? job : { ...job, onText });
        },
        (record) => {
          if (!quiet) {
            const rate = record.tokensPerSecond.toFixed(0);
            process.stderr.write(`\n[${record.tokens} tokens, ${rate} tokens/s, seed ${record.seed}]\n`);
          }
          return "";
        },
      );
    },
  );
}
