import { createInterface, type Interface } from "node:readline/promises";
import type { Command } from "commander";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type ChatResult, type Conversation, chat as openChat } from "../verbs/chat.ts";
import type { ContinueOptions } from "../verbs/continuing.ts";
import { CHAT_COMMANDS, obey, tell } from "./chat-lines.ts";
import { execute, MODEL, type SharedOptions, sharedOptions } from "./command.ts";
import { forVerb, type GenerationOptions, generationOptions } from "./generation-options.ts";

interface ChatCommandOptions extends SharedOptions, GenerationOptions {
  readonly system?: string;
}

export function chat(program: Command): void {
  const command = program
    .command("chat")
    .description("write in turns with a model; Ctrl-C stops its turn, Ctrl-D ends, /help lists commands")
    .argument("<model>", MODEL)
    .option("--system <text>", "what the model is told before all else; needs a chat template")
    .addHelpText("after", `\nWhile it runs:\n${CHAT_COMMANDS}`);
  sharedOptions(generationOptions(command, 128)).action((model: string, options: ChatCommandOptions) =>
    execute(
      options,
      async (job, clear) => {
        const { json, quiet, system, backend, threads, activations, cache, ...text } = options;
        const { tokenizer, lookup, draft, draftTokens, ...rest } = text;
        const running = { backend, threads, activations, cache, tokenizer, lookup, draft, draftTokens };
        const conversation = await openChat({ model, system, ...running }, job);
        clear();
        if (!conversation.templated && !quiet) {
          tell("[no chat template came with this model: it goes on with the text that you begin; /help]");
        }
        try {
          return await converse(
            conversation,
            { tokens: 128, topP: 0.9, ...forVerb(rest) },
            { json, quiet },
            job,
          );
        } finally {
          await conversation.close();
        }
      },
      () => "", // it was said while it came
    ),
  );
}

/** Reads lines and answers each, until Ctrl-D, the pipe's end, /quit, or Ctrl-C twice while nothing is written. */
async function converse(
  conversation: Conversation,
  options: ContinueOptions,
  { json, quiet }: SharedOptions,
  job: Job,
): Promise<Record<ChatResult>> {
  const firstSeed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const input = createInterface({
    input: process.stdin,
    output: json ? undefined : process.stdout,
    prompt: "> ",
  });
  let turn: AbortController | undefined;
  // Turns of one text draw differently; a text begun anew with the same seed draws as before.
  let seed = firstSeed;
  // Lines of a pipe arrive all at once; the pipe's end must not keep those that wait from being answered.
  let open = true;
  const prompt = () => {
    if (open && process.stdin.isTTY) input.prompt();
  };
  input.on("close", () => {
    open = false;
  });
  onControlC(input, () => turn);
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
      const done = obey(line, conversation);
      if (done === "quit") break;
      if (done === "begun anew") seed = firstSeed;
      if (typeof done === "object" && done.say !== "") {
        turn = new AbortController();
        await answer(done.say, turn.signal);
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

  async function answer(said: string, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    const notes: string[] = [];
    let made = 0;
    try {
      const steps = conversation.say(said, { ...options, seed }, { signal, onWarning: job.onWarning });
      for await (const { text, end, guessed } of steps) {
        made++;
        if (!json) process.stdout.write(text);
        if (end && guessed) notes.push(`${guessed.accepted} of ${guessed.drafted} guesses came true`);
        if (end === "context") notes.push("the context is full; --shift goes on, /reset begins anew");
      }
    } catch (error) {
      // Someone at a terminal can say something else.
      if (error instanceof InputError && process.stdin.isTTY) return tell(`lowbit: ${error.message}`);
      if (!signal.aborted) throw error;
      notes.push("interrupted");
    }
    if (!json) process.stdout.write("\n");
    const rate = (1000 * made) / (performance.now() - started);
    if (!quiet) tell(`[${[`${made} tokens`, `${rate.toFixed(0)} tokens/s`, ...notes].join(", ")}]`);
  }
}

/** Ctrl-C stops the model's turn or takes back what is written; once more, with nothing written, it ends. */
function onControlC(input: Interface, turn: () => AbortController | undefined): void {
  let again = false;
  input.on("line", () => {
    again = false;
  });
  input.on("SIGINT", () => {
    const controller = turn();
    if (controller) {
      controller.abort();
      again = true;
    } else if (input.line !== "") {
      again = false;
      input.write(null, { ctrl: true, name: "e" });
      input.write(null, { ctrl: true, name: "u" });
    } else if (again) {
      input.close();
    } else {
      again = true;
      tell("\n[Ctrl-C again, Ctrl-D or /quit ends]");
      input.prompt();
    }
  });
}
