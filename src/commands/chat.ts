import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import type { SamplingOptions } from "../generation/sampling.ts";
import type { Job, Record } from "../record/record.ts";
import { type ChatResult, type Conversation, chat as openChat } from "../verbs/chat.ts";
import { execute, type SharedOptions, samplingOptions, sharedOptions, wholeNumber } from "./command.ts";

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
  sharedOptions(command.option("--tokenizer <file>", "tok*.bin, *.model or tokenizer.json")).action(
    (model: string, options: ChatCommandOptions) =>
      execute(
        options,
        async (job, clear) => {
          const { backend, threads, tokenizer } = options;
          const conversation = await openChat({ model, backend, threads, tokenizer }, job);
          clear();
          try {
            return await converse(conversation, options, job);
          } finally {
            await conversation.close();
          }
        },
        () => "", // it was said while it came
      ),
  );
}

/** Reads lines and answers each, until Ctrl-D, the pipe's end, or Ctrl-C while the person writes. */
async function converse(
  conversation: Conversation,
  options: ChatCommandOptions,
  job: Job,
): Promise<Record<ChatResult>> {
  const { json, quiet, tokens = 128, temperature, topK, topP = 0.9, minP } = options;
  const firstSeed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const output = json ? undefined : process.stdout;
  const input = createInterface({ input: process.stdin, output, prompt: "> " });
  let turn: AbortController | undefined;
  // Turns of one text draw differently; a text begun anew with the same seed draws as before.
  let seed = firstSeed;
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
  // A signal from elsewhere, or Ctrl-C without a terminal, ends all.
  const end = () => {
    turn?.abort();
    input.close();
  };
  job.signal?.addEventListener("abort", end);
  try {
    prompt();
    for await (const line of input) {
      job.signal?.throwIfAborted();
      if (line.trim() === "/reset") {
        conversation.reset();
        seed = firstSeed;
      } else if (line !== "") {
        turn = new AbortController();
        await answer(line, turn.signal);
        turn = undefined;
        seed = (seed + 1) % 2 ** 32;
      }
      prompt();
    }
    job.signal?.throwIfAborted();
    return await conversation.record();
  } finally {
    job.signal?.removeEventListener("abort", end);
    input.close();
  }

  async function answer(line: string, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    const settings = { tokens, temperature, topK, topP, minP, seed };
    let made = 0;
    try {
      for await (const { text } of conversation.say(line, settings, { signal, onWarning: job.onWarning })) {
        made++;
        if (!json) process.stdout.write(text);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    if (!json) process.stdout.write("\n");
    const rate = (1000 * made) / (performance.now() - started);
    if (!quiet) process.stderr.write(`[${made} tokens, ${rate.toFixed(0)} tokens/s]\n`);
  }
}
