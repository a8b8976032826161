import { describe, expect, test } from "vitest";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import type { ChatMessage, ChatTemplate } from "./chat-template.ts";
import { plainDialogue, templateDialogue } from "./dialogue.ts";

/** An id for each letter; 0 begins a text. */
const tokenizer: Tokenizer = {
  vocabulary: 128,
  bos: 0,
  encode: (text) => Int32Array.from(text, (letter) => letter.charCodeAt(0)),
  bytes: (id) => Uint8Array.of(id),
  decode: (ids) => String.fromCharCode(...Array.from(ids)),
  piece: String,
};
/** `S:text|` `U:text|` `A:text|`, and `A:` where an answer begins. */
const template: ChatTemplate = {
  render: (messages) =>
    `${messages.map(({ role, content }) => `${role[0].toUpperCase()}:${content}|`).join("")}A:`,
  ids: (messages) => tokenizer.encode(template.render(messages)),
};
const text = (ids: Int32Array) => tokenizer.decode(ids);
const ids = (content: string) => [...tokenizer.encode(content)];
const silent = () => expect.fail("nothing should be forgotten");

describe("plain", () => {
  test("what is said and answered is one text, with one start", () => {
    const dialogue = plainDialogue(tokenizer);
    expect(text(dialogue.say("ab", 99, silent))).toBe("\0ab");
    dialogue.answered("cd", ids("cd"), "tokens");
    expect(text(dialogue.say("ef", 99, silent))).toBe("\0abcdef");
    expect(dialogue.messages.map(({ content }) => content)).toEqual(["ab", "cd", "ef"]);
  });

  test("a text that the model ended is over when the next is said; until then it can be read", () => {
    const dialogue = plainDialogue(tokenizer);
    dialogue.say("ab", 99, silent);
    dialogue.answered("cd", ids("cd\0"), "eos");
    expect(dialogue.messages).toHaveLength(2);
    expect(text(dialogue.say("ef", 99, silent))).toBe("\0ef");
    expect(dialogue.messages).toHaveLength(1);
  });

  test("an answer that was stopped stays, without its stop text", () => {
    const dialogue = plainDialogue(tokenizer);
    dialogue.say("a", 99, silent);
    dialogue.answered("b", ids("b\nYou:"), "stop");
    dialogue.say("c", 99, silent);
    dialogue.answered("d", ids("d"), undefined); // interrupted
    expect(text(dialogue.say("e", 99, silent))).toBe("\0abcde");
  });

  test("when the context is full the older half goes, the start stays, and it is said", () => {
    const dialogue = plainDialogue(tokenizer);
    const warnings: string[] = [];
    expect(text(dialogue.say("abcdefghi", 10, (message) => warnings.push(message)))).toBe("\0efghi");
    expect(warnings).toEqual(["the context of 10 tokens is full; the model sees the last 5 from here on"]);
    expect(dialogue.say("z".repeat(1000), 10, () => {}).length).toBeLessThan(10);
  });

  test("a context that one token fills forgets all but the start, and ends", () => {
    const dialogue = plainDialogue(tokenizer);
    expect(text(dialogue.say("a", 2, () => {}))).toBe("\0");
  });

  test("begins anew, resumes, and has no system", () => {
    const dialogue = plainDialogue(tokenizer);
    dialogue.say("ab", 99, silent);
    dialogue.reset();
    expect(dialogue.messages).toEqual([]);
    expect(() => plainDialogue({ ...tokenizer, bos: undefined }).say("", 99, silent)).toThrow("needs a text");
    dialogue.resume([
      { role: "user", content: "x" },
      { role: "assistant", content: "y" },
    ]);
    expect(text(dialogue.say("z", 99, silent))).toBe("\0xyz");
    expect(() => dialogue.instruct("be brief")).toThrow("no chat template, so no system text");
    expect(() => dialogue.resume([{ role: "system", content: "" }])).toThrow("no chat template");
    expect(dialogue.messages).toHaveLength(3);
  });
});

describe("with a template", () => {
  test("the template writes who said what; interrupted answers stay", () => {
    const dialogue = templateDialogue(template);
    dialogue.instruct("s");
    expect(text(dialogue.say("a", 99, silent))).toBe("S:s|U:a|A:");
    dialogue.answered("b", [], undefined);
    expect(text(dialogue.say("c", 99, silent))).toBe("S:s|U:a|A:b|U:c|A:");
    dialogue.instruct("t");
    dialogue.answered("d", [], "eos");
    expect(text(dialogue.say("e", 99, silent))).toBe("S:t|U:a|A:b|U:c|A:d|U:e|A:");
    dialogue.reset();
    expect(text(dialogue.say("f", 99, silent))).toBe("S:t|U:f|A:");
    dialogue.instruct("");
    expect(dialogue.messages.map(({ role }) => role)).toEqual(["user"]);
  });

  test("a shift keeps all up to what the person says first", () => {
    const dialogue = templateDialogue(template);
    dialogue.instruct("sys");
    expect(dialogue.first).toBe("S:sys|U:".length);
  });

  test("when the context is full the older half of the turns goes, the system stays, and it is said", () => {
    const dialogue = templateDialogue(template);
    const told: ChatMessage[] = [{ role: "system", content: "s" }];
    for (const letter of "abcd") {
      told.push({ role: "user", content: letter }, { role: "assistant", content: letter.toUpperCase() });
    }
    dialogue.resume(told);
    const warnings: string[] = [];
    const warn = (message: string) => warnings.push(message);
    expect(text(dialogue.say("e", 40, warn))).toBe("S:s|U:c|A:C|U:d|A:D|U:e|A:");
    expect(warnings).toEqual([
      "the context of 40 tokens is full; the model sees the last 5 messages from here on",
    ]);
    expect(dialogue.messages).toHaveLength(10); // kept, to be saved
    dialogue.answered("E", [], "eos");
    expect(text(dialogue.say("f", 40, warn))).toBe("S:s|U:c|A:C|U:d|A:D|U:e|A:E|U:f|A:");
    expect(warnings).toHaveLength(1);
  });

  test("what does not fit at all is refused, and forgotten", () => {
    const dialogue = templateDialogue(template);
    dialogue.say("a", 20, silent);
    dialogue.answered("b", [], "eos");
    expect(() => dialogue.say("x".repeat(30), 20, silent)).toThrow(
      "chat: 35 tokens do not fit into a context of 20 and leave room for an answer; say less",
    );
    expect(text(dialogue.say("c", 20, silent))).toBe("U:a|A:b|U:c|A:");
  });
});
