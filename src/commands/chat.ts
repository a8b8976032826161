import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import type { SamplingOptions } from "../generation/sampling.ts";
import { chat as openChat } from "../verbs/chat.ts";
import { type SharedOptions, samplingOptions, sharedOptions, wholeNumber } from "./command.ts";

interface ChatCommandOptions extends SharedOptions, SamplingOptions {
  readonly tokens?: number;
  readonly seed?: number;
  readonly tokenizer?: string;
}

export function chat(program: Command): void {
  const command = program
    .command("chat")
    .description("write a text in turns with a model; Ctrl-C stops its turn, Ctrl-D ends, /reset begins anew")
    .argument("<model>", "folder, llama2.c .bin, bundled:NAME or hf:OWNER/NAME[@REVISION]")
    .option("--tokens <n>", "most tokens of a turn (default: 128)", wholeNumber(1));
  samplingOptions(command).option(
    "--seed <n>",
    "same seed, same text (default: drawn)",
    wholeNumber(0, 2 ** 32 - 1),
  );
  sharedOptions(command.option("--tokenizer <file>", "tok*.bin, *.model or tokenizer.json")).action(converse);
}

async function converse(model: string, options: ChatCommandOptions): Promise<void> {
  const { json, quiet, tokens = 128, ...settings } = options;
  const conversation = await openChat({ ...settings, model }, { onWarning: warn });
  const output = json ? undefined : process.stdout;
  const input = createInterface({ input: process.stdin, output, prompt: "> " });
  let turn: AbortController | undefined;
  // Lines of a pipe arrive all at once; the pipe's end must not keep those that wait from being answered.
  let open = true;
  const prompt = () => {
    if (open) input.prompt();
  };
  input.on("close", () => {
    open = false;
  });
  input.on("SIGINT", () => {
    // Ctrl-C stops the model's turn; when it is the person's turn it ends the conversation.
    if (turn) turn.abort();
    else input.close();
  });
  try {
    prompt();
    for await (const line of input) {
      if (line.trim() === "/reset") conversation.reset();
      else if (line !== "") {
        turn = new AbortController();
        await answer(line, turn.signal);
        turn = undefined;
      }
      prompt();
    }
  } finally {
    input.close();
    await conversation.close();
  }

  async function answer(line: string, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    let made = 0;
    let text = "";
    try {
      for await (const step of conversation.say(
        line,
        { topP: 0.9, ...settings, tokens },
        { signal, onWarning: warn },
      )) {
        made++;
        text += step.text;
        if (!json) process.stdout.write(step.text);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    const tokensPerSecond = (1000 * made) / (performance.now() - started);
    if (json) process.stdout.write(`${JSON.stringify({ text, tokens: made, tokensPerSecond })}\n`);
    else process.stdout.write("\n");
    if (!quiet) process.stderr.write(`[${made} tokens, ${tokensPerSecond.toFixed(0)} tokens/s]\n`);
  }
}

function warn(message: string): void {
  process.stderr.write(`warning: ${message}\n`);
}
