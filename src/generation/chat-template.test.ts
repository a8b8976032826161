import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openTokenizer } from "../files/index.ts";
import { InputError } from "../tensor/tensor.ts";
import { tokenizerFrom, trainByteLevelBpe } from "../tokenizers/index.ts";
import { type ChatMessage, chatTemplate } from "./chat-template.ts";

const BYTES = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);

/** A vocabulary of bytes with the control tokens of a chat, and this template. */
const tokenizer = (template: string, addBos = true) =>
  tokenizerFrom({
    kind: "gguf",
    model: "llama",
    tokens: ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", ...BYTES],
    types: Uint8Array.from([2, 3, 3, 3, 3, ...BYTES.map(() => 6)]),
    bos: 1,
    eos: 2,
    addBos,
    addSpacePrefix: false,
    chatTemplate: template,
  });

const CHATML = `{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}`;
const LLAMA2 = `{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content | trim + ' [/INST]' }}{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}`;
const messages: ChatMessage[] = [
  { role: "user", content: "Hi" },
  { role: "assistant", content: "Yes?" },
  { role: "user", content: " Go. " },
];

test("renders what transformers renders, and ids read its control tokens", () => {
  const chat = chatTemplate(tokenizer(CHATML, false))!;
  expect(chat.render(messages.slice(0, 1))).toBe("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  expect(chat.render(messages.slice(0, 1), { addGenerationPrompt: false })).toBe(
    "<|im_start|>user\nHi<|im_end|>\n",
  );
  const byte = (text: string) => Array.from(text, (c) => 5 + c.charCodeAt(0));
  expect([...chat.ids(messages.slice(0, 1))]).toEqual([
    3,
    ...byte("user\nHi"),
    4,
    ...byte("\n"),
    3,
    ...byte("assistant\n"),
  ]);
});

test("one start token stands in front, the template's or the vocabulary's", () => {
  expect(chatTemplate(tokenizer(LLAMA2))!.render(messages)).toBe(
    "<s>[INST] Hi [/INST] Yes? </s>[INST] Go. [/INST]",
  );
  expect([...chatTemplate(tokenizer(LLAMA2))!.ids(messages)].slice(0, 2)).toEqual([1, 5 + 0x5b]);
  expect([...chatTemplate(tokenizer(CHATML))!.ids(messages)].slice(0, 2)).toEqual([1, 3]);
  expect([...chatTemplate(tokenizer(CHATML, false))!.ids(messages)][0]).toBe(3);
});

test("a vocabulary without a template has none", () => {
  const { chat: _, ...plain } = tokenizer("");
  expect(chatTemplate(plain)).toBeUndefined();
});

test("a Hugging Face folder keeps it in its config or in a file of its own", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lowbit-chat-"));
  try {
    const { tokenizer: json, config } = await trainByteLevelBpe(["a text, a text"], 258);
    const rendered = async () => chatTemplate(tokenizerFrom(await openTokenizer(folder)))?.render(messages);
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(json));
    expect(await rendered()).toBeUndefined();
    const named = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "{{ bos_token }}{{ messages | length }}" },
    ];
    writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ ...config, chat_template: named }));
    expect(await rendered()).toBe("<|document|>3");
    writeFileSync(join(folder, "chat_template.jinja"), "{{ messages[0].content }}");
    expect(await rendered()).toBe("Hi");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("dates are written as Python writes them", () => {
  const { render } = chatTemplate(tokenizer("{{ strftime_now('%d %b %Y, %H:%M:%S 100%%') }}"))!;
  expect(render([])).toMatch(/^\d\d [A-Z][a-z]{2} \d{4}, \d\d:\d\d:\d\d 100%$/);
});

describe("templates of strangers end in one line", () => {
  const cases: [name: string, template: string, message: RegExp][] = [
    ["syntax error", "{% for x in %}", /^chat template: /],
    ["unclosed block", "{% if a %}", /^chat template: /],
    ["unknown function", "{{ open('/etc/passwd') }}", /^chat template: /],
    ["refusal", LLAMA2, /^chat template: Only user and assistant roles/],
    ["long range", "{% for i in range(1000000000) %}x{% endfor %}", /list of more than 100000/],
    ["endless range", "{{ range(0, 10, 0) }}", /list of more than/],
    [
      "nested loops",
      "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}",
      /steps|second/,
    ],
    [
      "nested empty loops",
      "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
      /steps|second/,
    ],
    ["endless recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /^chat template: /],
    [
      "doubling text",
      "{% set n = namespace(t='x') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}{{ n.t }}",
      /text of more than/,
    ],
    [
      "doubling list",
      "{% set n = namespace(t=[1]) %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
      /list of more than/,
    ],
    ["deep nesting", `{{ ${"(".repeat(100_000)}1${")".repeat(100_000)} }}`, /^chat template: /],
    ["too long", "x".repeat(2 ** 20 + 1), /at most 1048576 are read/],
  ];
  test.each(cases)("%s", (_, template, message) => {
    const started = performance.now();
    let met: unknown;
    try {
      chatTemplate(tokenizer(template))!.render([{ role: "system", content: "Be kind." }]);
    } catch (error) {
      met = error;
    }
    expect(met).toBeInstanceOf(InputError);
    expect((met as Error).message).toMatch(message);
    expect((met as Error).message).not.toContain("\n");
    expect(performance.now() - started).toBeLessThan(4000);
  });
});
