import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chat, generate, InputError } from "../src/index.ts";
import type { GenerateOptions } from "../src/verbs/generate.ts";
import { train } from "../src/verbs/train.ts";
import { tinyRecipe, writeTinyText } from "./tiny-training.ts";

const cli = join(import.meta.dirname, "../bin/lowbit.mjs");
const backend = "reference" as const;

let folder = "";
const at = (...parts: string[]) => join(folder, ...parts);

/** Runs the command line as a person would, with lines of a pipe. */
function lowbit(args: string[], input = "") {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args, "--backend", backend], {
    cwd: folder,
    encoding: "utf8",
    input,
  });
  return { status, stdout, stderr };
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-generation-"));
  // A context of 16 tokens.
  await train({ recipe: tinyRecipe(writeTinyText(folder), "float"), out: at("model"), backend });
  cpSync(at("model"), at("talker"), { recursive: true });
  const config = JSON.parse(readFileSync(at("model/tokenizer_config.json"), "utf8"));
  const chat_template =
    "{% for m in messages %}{{ m.role[0] }}{{ m.content }};{% endfor %}{% if add_generation_prompt %}a{% endif %}";
  writeFileSync(at("talker/tokenizer_config.json"), JSON.stringify({ ...config, chat_template }));
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("generate", () => {
  const run = (options: Partial<GenerateOptions>) =>
    generate({ model: at("model"), prompt: "The", tokens: 9, seed: 4, backend, ...options });

  test("a stop text ends it before it is shown", async () => {
    const { text } = await run({});
    const stop = text.slice(4, 6);
    const record = await run({ stop: [stop] });
    expect(record).toMatchObject({ end: "stop", text: text.slice(0, text.indexOf(stop)) });
  });

  test("guesses leave the text as it is, and are counted; the draft is in the record", async () => {
    const plain = await run({ dryMultiplier: 0.8, topK: 30, typical: 0.9 });
    expect(plain.guessed).toBeUndefined();
    for (const speculation of [
      { lookup: 3 },
      { draft: at("talker") },
      { draft: at("model"), draftTokens: 7 },
    ]) {
      const record = await run({ dryMultiplier: 0.8, topK: 30, typical: 0.9, ...speculation });
      expect([record.text, record.tokens, record.end]).toEqual([plain.text, plain.tokens, plain.end]);
      expect(record.guessed!.accepted).toBeLessThanOrEqual(record.guessed!.drafted);
      expect(record.models).toHaveLength("draft" in speculation ? 2 : 1);
      if ("draft" in speculation) expect(record.guessed!.accepted).toBe(record.guessed!.drafted); // the same weights
    }
  });

  test("ends at the end of the context, or goes on with a shift", async () => {
    expect(await run({ tokens: 40, temperature: 0 })).toMatchObject({ end: "context" });
    expect(await run({ tokens: 40, temperature: 0, shift: true })).toMatchObject({
      end: "tokens",
      tokens: 40,
    });
  });

  test("records are JSON: a ban is a word, a draft's path its name", async () => {
    const record = await run({
      logitBias: [
        ["fox", Number.NEGATIVE_INFINITY],
        [3, 1],
      ],
      draft: at("model"),
    });
    expect(JSON.parse(JSON.stringify(record)).options).toMatchObject({
      logitBias: [
        ["fox", "-inf"],
        [3, 1],
      ],
      draft: "model",
    });
  });

  test.each([
    [{ typical: 0 }, "sampling: typical must be above 0 and at most 1, got 0"],
    [{ tokens: 0 }, "generate: tokens must be a whole number from 1, got 0"],
    [{ keep: -1 }, "generate: keep must be a whole number from 0, got -1"],
    [{ lookup: 8 }, "generate: lookup must be from 1 to 7, got 8"],
    [{ draftTokens: 0 }, "generate: draft-tokens must be from 1 to 7, got 0"],
    [{ stop: [""] }, "generate: a stop text must not be empty; leave it out"],
    [{ lookup: 2, draft: "x" }, "generate: guesses come from --lookup or from --draft; give one of them"],
    [{ logitBias: [[9999, 1]] }, "sampling: logit-bias of token 9999, but the vocabulary has 0 to 279"],
    [{ stopTokens: [280] }, "generate: stop-token 280 is no id, the vocabulary has 0 to 279"],
    [
      { draft: "bundled:float" },
      "draft: has 2048 tokens, the model 280; take a draft of the same vocabulary",
    ],
  ] as const)("%j is refused", async (options, message) => {
    await expect(run(options)).rejects.toThrow(new InputError(message));
  });

  test("what is out of range is refused in one line, with status 2", () => {
    expect(lowbit(["generate", "model", "The", "--top-p", "0", "--quiet"])).toEqual({
      status: 2,
      stdout: "",
      stderr: "lowbit: sampling: top-p must be above 0 and at most 1, got 0\n",
    });
  });
});

describe("chat through a pipe", () => {
  const options = ["--tokens", "3", "--seed", "5"];

  test("answers are on stdout, all else on stderr; a model without a template is said to have none, once", () => {
    const { status, stdout, stderr } = lowbit(
      ["chat", "model", ...options],
      "The fox\n\n sees\n/quit\n the hen\n",
    );
    expect(status).toBe(0);
    expect(stdout.split("\n")).toHaveLength(3);
    expect(stderr.match(/no chat template/g)).toHaveLength(1);
    expect(stderr.match(/\[3 tokens, \d+ tokens\/s\]/g)).toHaveLength(2);
  });

  test("what was kept can be gone on with", () => {
    const first = lowbit(["chat", "model", ...options, "--quiet"], "The fox\n/save kept.json\n sees\n");
    const { messages } = JSON.parse(readFileSync(at("kept.json"), "utf8"));
    expect(messages).toHaveLength(2);
    expect(messages[0]).toEqual({ role: "user", content: "The fox" });
    // The next seed, as the second turn had.
    const again = ["chat", "model", "--tokens", "3", "--seed", "6", "--quiet"];
    const second = lowbit(again, "/load kept.json\n sees\n");
    expect(first.stdout).toBe(`${messages[1].content}\n${second.stdout}`);
  });

  test("commands that fail say so in a line, and the conversation goes on", () => {
    writeFileSync(at("diary.txt"), "dear diary");
    writeFileSync(
      at("wrong.json"),
      JSON.stringify({ lowbit: "chat", version: 1, messages: [{ role: "x" }] }),
    );
    const lines = [
      "/nonsense",
      "/save diary.txt",
      "/save",
      "/load absent.json",
      "/load diary.txt",
      "/load wrong.json",
    ];
    const { status, stdout, stderr } = lowbit(
      ["chat", "model", ...options, "--quiet"],
      `${[...lines, "/system be kind", "The fox"].join("\n")}\n`,
    );
    expect(status).toBe(0);
    expect(stdout).toMatch(/^.+\n$/s);
    expect(stderr.trimEnd().split("\n")).toEqual([
      "lowbit: /nonsense: is no command; /help lists them, //nonsense says it",
      "lowbit: /save: diary.txt is there and is no conversation; choose another name",
      "lowbit: /save: needs a file's name",
      expect.stringContaining("absent.json"),
      "lowbit: /load: diary.txt is no conversation; give a file that /save wrote",
      "lowbit: /load: wrong.json: message 0 needs a role and a content; mend it",
      expect.stringContaining("no chat template, so no system text"),
    ]);
    expect(readFileSync(at("diary.txt"), "utf8")).toBe("dear diary");
  });

  test("a model with a template is told who said what", async () => {
    const conversation = await chat({ model: at("talker"), system: "k", backend });
    try {
      expect(conversation.templated).toBe(true);
      const said = async (text: string) => {
        let answer = "";
        for await (const step of conversation.say(text, { tokens: 2, temperature: 0 })) answer += step.text;
        return answer;
      };
      const first = await said("x");
      // The same as the text that the template writes, continued.
      const { text } = await generate({
        model: at("model"),
        prompt: "sk;ux;a",
        tokens: 2,
        temperature: 0,
        backend,
      });
      expect(first).toBe(text);
      expect(conversation.messages).toEqual([
        { role: "system", content: "k" },
        { role: "user", content: "x" },
        { role: "assistant", content: first },
      ]);
      await expect(said("a b c d e f g h i j k l m n o p")).rejects.toThrow(
        "do not fit into a context of 16",
      );
      expect(conversation.messages).toHaveLength(3);
    } finally {
      await conversation.close();
    }
  });

  test("an interrupted answer stays in the conversation", async () => {
    const conversation = await chat({ model: at("model"), backend });
    try {
      const controller = new AbortController();
      const answer = async () => {
        for await (const _ of conversation.say("The", { seed: 1 }, { signal: controller.signal }))
          controller.abort();
      };
      await expect(answer()).rejects.toThrow("abort");
      expect(conversation.messages).toHaveLength(2);
      const { turns } = await conversation.record();
      expect(turns[0]).toMatchObject({ tokens: 1, said: "The" });
      expect(turns[0].end).toBeUndefined();
    } finally {
      await conversation.close();
    }
  });
});

/** A pseudo terminal: Python is there wherever the addon was built. */
const PTY = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
const havePython = spawnSync("python3", ["-c", "import pty"]).status === 0;

describe.skipIf(!havePython)("chat on a terminal", () => {
  /** Each key is pressed when the screen shows what it waits for, counted from the last. */
  const screen = async (keys: readonly (readonly [shown: string, key: string])[], ...args: string[]) => {
    const child = spawn("python3", ["-c", PTY, process.execPath, cli, "chat", ...args], { cwd: folder });
    let shown = "";
    let from = 0;
    let pressed = 0;
    child.stdout.setEncoding("utf8").on("data", (text) => {
      shown += text;
      while (pressed < keys.length) {
        const found = shown.indexOf(keys[pressed][0], from);
        if (found < 0) return;
        from = found + keys[pressed][0].length;
        child.stdin.write(keys[pressed++][1]);
      }
    });
    const guard = setTimeout(() => child.kill(), 30_000);
    const [status] = await once(child, "close");
    clearTimeout(guard);
    expect({ status, pressed }, shown).toEqual({ status: 0, pressed: keys.length });
    return shown;
  };
  const ready = "> \x1b[3G";

  test("Ctrl-C takes back what is written; twice with nothing written it ends", async () => {
    const keys = [
      [ready, "half a line"],
      ["half a line", "\x03"],
      [ready, "\x03"],
      ["Ctrl-C again", "\x03"],
    ] as const;
    const shown = await screen(keys, "model", "--backend", backend);
    expect(shown).not.toContain("tokens/s");
  });

  test("an answer stopped by Ctrl-C is said to be", async () => {
    const shown = await screen(
      [
        [ready, "Once\n"],
        ["e ", "\x03"], // the answer has begun
        ["interrupted]", ""],
        [ready, "/quit\n"],
      ],
      "bundled:float",
      "--tokens",
      "100000",
      "--shift",
      "--backend",
      backend,
    );
    expect(shown).toMatch(/\[\d+ tokens, \d+ tokens\/s, interrupted\]/);
  });
});

describe.skipIf(!existsSync(join(import.meta.dirname, "../build/Release/lowbit.node")))(
  "the native backend",
  () => {
    const options = {
      model: "bundled:float",
      prompt: "Once upon a time there was a king, and once upon a time",
      tokens: 60,
      seed: 9,
      temperature: 0.9,
      topK: 50,
      topP: 0.95,
      minP: 0.01,
      repetitionPenalty: 1.1,
      backend: "native",
    } as const;

    test("the same seed gives the same text on one thread and on two, with guesses and without", async () => {
      const { text } = await generate({ ...options, threads: 1 });
      expect((await generate({ ...options, threads: 2 })).text).toBe(text);
      expect((await generate({ ...options, threads: 2, lookup: 7 })).text).toBe(text);
      const drafted = await generate({ ...options, threads: 2, draft: "bundled:trilm", draftTokens: 7 });
      expect(drafted.text).toBe(text);
      expect(drafted.guessed!.accepted).toBeGreaterThan(10);
    });
  },
);
