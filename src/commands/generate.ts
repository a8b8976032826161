import type { Command } from "commander";
import { generate as generateText } from "../verbs/generate.ts";
import { execute, MODEL, type SharedOptions, sharedOptions } from "./command.ts";
import { forVerb, type GenerationOptions, generationOptions } from "./generation-options.ts";

export function generate(program: Command): void {
  const command = program
    .command("generate")
    .description("continue a text")
    .argument("<model>", MODEL)
    .argument("[prompt]", "text to continue", "");
  sharedOptions(generationOptions(command, 256)).action(
    async (model: string, prompt: string, options: SharedOptions & GenerationOptions) => {
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
          return generateText({ ...forVerb(settings), model, prompt }, json ? job : { ...job, onText });
        },
        ({ tokens, tokensPerSecond, seed, end, guessed }) => {
          process.stdout.write(before); // a continuation without a character
          if (!quiet) {
            const notes = [`${tokens} tokens`, `${tokensPerSecond.toFixed(0)} tokens/s`, `seed ${seed}`];
            if (guessed) notes.push(`${guessed.accepted} of ${guessed.drafted} guesses came true`);
            if (end === "context") notes.push("the context is full; --shift goes on");
            process.stderr.write(`\n[${notes.join(", ")}]\n`);
          }
          return "";
        },
      );
    },
  );
}
