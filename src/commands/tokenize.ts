import type { Command } from "commander";
import { readText } from "../files/index.ts";
import { InputError } from "../tensor/tensor.ts";
import { detokenize, type TokenizeResult, tokenize as tokenizeText } from "../verbs/tokenize.ts";
import { execute, MODEL, outputOptions, type SharedOptions, TOKENIZER } from "./command.ts";
import { printable } from "./table.ts";

interface TokenizeCommandOptions extends SharedOptions {
  readonly text?: string;
  readonly tokenizer?: string;
  readonly decode?: boolean;
  readonly special?: boolean;
}

export function tokenize(program: Command): void {
  const command = program
    .command("tokenize")
    .description(
      "ids and pieces of a text, or with --decode the text of ids; without text it is read from stdin",
    )
    .argument("<model>", `${MODEL}, or a tokenizer's file`)
    .argument("[text]", "text, or ids with --decode")
    .option("--text <file>", "read it from a file")
    .option("--decode", "print the text of ids: a JSON array, or numbers with spaces between")
    .option("--special", "read spellings of control tokens (<|im_start|>) as those tokens")
    .option("--tokenizer <file>", TOKENIZER);
  outputOptions(command).action(
    async (model: string, text: string | undefined, options: TokenizeCommandOptions) => {
      const { tokenizer, special } = options;
      if (text !== undefined && options.text !== undefined)
        throw new InputError("tokenize: needs a text or --text, got both");
      if (options.decode) {
        await execute(
          options,
          async (job) => {
            const given = await input(text, options.text, job.signal);
            return detokenize({ model, tokenizer, ids: idsIn(given) }, job);
          },
          (result) => {
            process.stdout.write(result.text);
            return "";
          },
        );
      } else {
        await execute(
          options,
          async (job) => {
            const given = await input(text, options.text, job.signal);
            return tokenizeText({ model, tokenizer, special, text: given }, job);
          },
          show,
        );
      }
    },
  );
}

/** One line for each token: its id, and how the vocabulary spells it. */
function show({ ids, pieces }: TokenizeResult): string {
  return ids.map((id, i) => `${id}\t${printable(pieces[i])}`).join("\n");
}

/** What is to be read: the argument, a file, or all of stdin. */
async function input(given: string | undefined, file: string | undefined, signal?: AbortSignal) {
  if (given !== undefined) return given;
  const bytes = file === undefined ? await stdin(signal) : await readText(file);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new InputError(`${file ?? "stdin"}: needs UTF-8 text, met bytes that are not; convert it first`);
  }
}

/** The longest text that a string holds. */
const LONGEST = 2 ** 29 - 24;

async function stdin(signal?: AbortSignal): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let length = 0;
  // A terminal or a pipe that nobody ends must not outlive Ctrl-C.
  const stop = () => process.stdin.destroy();
  signal?.addEventListener("abort", stop);
  try {
    for await (const chunk of process.stdin) {
      length += chunk.length;
      if (length > LONGEST) throw new InputError(`stdin: more than ${LONGEST} bytes; cut it into parts`);
      chunks.push(chunk);
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
  }
  signal?.throwIfAborted();
  return Buffer.concat(chunks);
}

function idsIn(text: string): number[] {
  const words = text.replace(/^\s*\[|\]\s*$/g, "").split(/[\s,]+/);
  return words
    .filter((word) => word !== "")
    .map((word) => {
      if (!/^\d{1,10}$/.test(word)) {
        const shown = JSON.stringify(word.slice(0, 40));
        throw new InputError(
          `tokenize: ${shown} is not an id; needs a JSON array or numbers with spaces between`,
        );
      }
      return Number(word);
    });
}
