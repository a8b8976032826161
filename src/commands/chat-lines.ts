import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { InputError } from "../tensor/tensor.ts";
import type { ChatMessage, Conversation } from "../verbs/chat.ts";
import { printable } from "./table.ts";

/** What a line can say beside a message. */
export const CHAT_COMMANDS = `  /help          these lines
  /reset         begin anew
  /system TEXT   what the model is told before all else; none to take it back
  /save FILE     keep what was said
  /load FILE     go on with what was kept
  /quit          end; so do Ctrl-D, and Ctrl-C twice
  //TEXT         say /TEXT`;

// What a person types and a model answers stays far below this.
const LARGEST_FILE = 2 ** 26; // bytes

/** A line of a chat is something to say, or a command, which is done here. */
export type Done = { readonly say: string } | "done" | "begun anew" | "quit";

/** Does what a line asks for; a command that fails says why and changes nothing. */
export function obey(line: string, conversation: Conversation): Done {
  if (!line.startsWith("/")) return { say: line };
  if (line.startsWith("//")) return { say: line.slice(1) };
  const [, name, rest] = /^\/(\S*)\s*(.*?)\s*$/s.exec(line)!;
  try {
    return command(name, rest, conversation);
  } catch (error) {
    tell(`lowbit: ${error instanceof Error ? error.message : error}`);
    return "done";
  }
}

function command(name: string, rest: string, conversation: Conversation): Done {
  switch (name) {
    case "help":
      tell(CHAT_COMMANDS);
      return "done";
    case "reset":
      conversation.reset();
      return "begun anew";
    case "system":
      conversation.instruct(rest);
      return "done";
    case "save":
      save(needed(name, rest), conversation.messages);
      tell(`[${conversation.messages.length} messages in ${rest}]`);
      return "done";
    case "load":
      conversation.messages = read(needed(name, rest));
      tell(`[${conversation.messages.length} messages]`);
      return "done";
    case "quit":
      return "quit";
    default:
      throw new InputError(`/${name}: is no command; /help lists them, //${name} says it`);
  }
}

function needed(name: string, file: string): string {
  if (file === "") throw new InputError(`/${name}: needs a file's name`);
  return file;
}

/** Writes a conversation; takes the place of one, but of nothing else. */
function save(file: string, messages: readonly ChatMessage[]): void {
  if (existsSync(file)) {
    try {
      read(file);
    } catch {
      throw new InputError(`/save: ${file} is there and is no conversation; choose another name`);
    }
  }
  writeFileSync(file, `${JSON.stringify({ lowbit: "chat", version: 1, messages }, null, 2)}\n`);
}

function read(file: string): ChatMessage[] {
  const { size } = statSync(file);
  if (size > LARGEST_FILE) {
    throw new InputError(`/load: ${file} has ${size} bytes; no conversation is larger than ${LARGEST_FILE}`);
  }
  const saved = parsed(readFileSync(file, "utf8"));
  if (saved?.lowbit !== "chat" || saved.version !== 1 || !Array.isArray(saved.messages)) {
    throw new InputError(`/load: ${file} is no conversation; give a file that /save wrote`);
  }
  return saved.messages.map((message: unknown, n: number) => {
    const { role, content } = (message ?? {}) as ChatMessage;
    if (!["system", "user", "assistant"].includes(role) || typeof content !== "string") {
      throw new InputError(`/load: ${file}: message ${n} needs a role and a content; mend it`);
    }
    return { role, content };
  });
}

/** An object of a JSON text, undefined for any other text. */
function parsed(text: string): { [key: string]: unknown } | undefined {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Lines beside the conversation. */
export function tell(lines: string): void {
  process.stderr.write(`${lines.split("\n").map(printable).join("\n")}\n`);
}
