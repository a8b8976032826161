import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { tinyRecipe, writeTinyText } from "./tiny-training.ts";

const cli = join(import.meta.dirname, "../bin/lowbit.mjs");

let folder = "";
const at = (...parts: string[]) => join(folder, ...parts);

/** Runs the command line as a person would. */
function lowbit(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [cli, ...args], {
    cwd: folder,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

/** Bad input: status 2, nothing on stdout, one line on stderr that says these words. */
function expectRefused(args: string[], ...words: RegExp[]): void {
  const { status, stdout, stderr } = lowbit(...args);
  const lines = stderr.trimEnd().split("\n");
  expect({ status, stdout, lines: lines.length }, stderr).toEqual({ status: 2, stdout: "", lines: 1 });
  for (const word of words) expect(lines[0]).toMatch(word);
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-cli-"));
  const text = writeTinyText(folder);
  writeFileSync(at("recipe.yaml"), stringify({ ...tinyRecipe(text, "float"), steps: 4, validateEvery: 2 }));
  const trained = lowbit("train", "recipe.yaml", "-o", "model", "--quiet");
  expect(trained.stderr).toBe("");
  expect(trained.status).toBe(0);
}, 120_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("--json prints exactly one document, with the fields that others rely on", () => {
  const json = (...args: string[]) => {
    const { status, stdout, stderr } = lowbit(...args, "--json", "--quiet");
    expect(stderr).toBe("");
    expect(status).toBe(0);
    return JSON.parse(stdout);
  };

  test("inspect", () => {
    const record = json("inspect", "model");
    expect(record).toMatchObject({ architecture: "llama", record: "lowbit", verb: "inspect" });
    const stored = record.tensors.reduce((sum: number, t: { bytes: number }) => sum + t.bytes, 0);
    expect(record.bitsPerWeight.total).toBeCloseTo((8 * stored) / record.parameters, 10);
    expect(record.bytes).toBeGreaterThanOrEqual(stored);
  });

  test("evaluate", () => {
    const record = json("evaluate", "model", "--text", "text/held.txt", "--reference", "model");
    const { tokens, loss, lossStandardError, perplexity, bitsPerByte } = record.models[0].text;
    expect(tokens).toBeGreaterThan(100);
    expect(perplexity).toBeCloseTo(Math.exp(loss), 10);
    expect(lossStandardError).toBeGreaterThan(0);
    expect(bitsPerByte).toBeGreaterThan(0);
    expect(record.models[0].divergence).toMatchObject({ klMean: 0, kl99: 0, sameTop1: 1 });
  });

  test("evaluate through a cache of few bits, beside the same model without", () => {
    const both = ["model", "--text", "text/held.txt", "--reference", "model"];
    const record = json("evaluate", ...both, "--cache", "int4");
    expect(record.options.cache).toBe("int4");
    expect(record.models[0].divergence.klMean).toBeGreaterThan(0);
    expect(lowbit("evaluate", ...both, "--cache", "int5").status).toBe(2);
  });

  test("compress", () => {
    const record = json(
      "compress",
      "model",
      "-o",
      "small",
      "--format",
      "int4",
      "--method",
      "gptq",
      "--calibration",
      "text/a.txt",
    );
    expect(record.bytes.after).toBeLessThan(record.bytes.before);
    expect(record.layers).toHaveLength(14);
    expect(record.layers[0]).toMatchObject({ method: "gptq", format: "int4", errorOf: "output" });
    expect(record.bitsPerWeight.linear).toBe(json("inspect", "small").bitsPerWeight.linear);
    expect(json("evaluate", "small", "--text", "text/held.txt").models[0].text.loss).toBeGreaterThan(0);
  });

  test("a dry run of compress", () => {
    const record = json("compress", "model", "-o", "dry", "--format", "int4", "--dry-run");
    expect(record).toMatchObject({ verb: "compress", method: "rtn", options: { dryRun: true } });
    const matrices = record.shapes.map(({ matrices }: { matrices: number }) => matrices);
    expect(matrices.reduce((sum: number, n: number) => sum + n, 0)).toBe(14);
    expect(record.bytes.after).toBeLessThan(record.bytes.before);
    expect(readdirSync(folder).filter((name) => name.includes("dry"))).toEqual([]);
    const { stdout } = lowbit("compress", "model", "-o", "dry", "--method", "reallm", "--dry-run");
    expect(stdout).toMatch(/\nbits per weight: [\d.]+ in linear layers, .*\n.*nothing was written\n$/);
  });

  test("generate", () => {
    const record = json("generate", "model", "The fox", "--tokens", "5", "--seed", "7");
    expect(record).toMatchObject({ tokens: 5, seed: 7 });
    expect(json("generate", "model", "The fox", "--tokens", "5", "--seed", "7").text).toBe(record.text);
  });

  test("chat: one document, with a turn for each line", () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [cli, "chat", "model", "--tokens", "4", "--seed", "7", "--json", "--quiet"],
      { cwd: folder, encoding: "utf8", input: "The fox\n sees\n/reset\nThe fox\n" },
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const { turns, text, tokens, tokensPerSecond, verb } = JSON.parse(stdout);
    expect(verb).toBe("chat");
    expect(turns.map(({ said }: { said: string }) => said)).toEqual(["The fox", " sees", "The fox"]);
    expect(turns[2].text).toBe(turns[0].text);
    expect(text).toBe(turns.map((turn: { text: string }) => turn.text).join(""));
    expect(tokens).toBe(turns.reduce((sum: number, turn: { tokens: number }) => sum + turn.tokens, 0));
    expect(tokensPerSecond).toBeGreaterThan(0);
  });

  test("bench", () => {
    const record = json("bench", "model", "--backend", "reference");
    expect(record.decodeTokensPerSecond).toBeGreaterThan(0);
    expect(record.prefillTokensPerSecond).toBeGreaterThan(0);
    expect(record.memoryBandwidthShare).toBeGreaterThan(0);
  });

  test("doctor", () => {
    const { backends } = json("doctor");
    expect(backends.map(({ name }: { name: string }) => name).sort()).toEqual([
      "native",
      "reference",
      "wasm",
    ]);
    expect(backends.find(({ name }: { name: string }) => name === "reference").ok).toBe(true);
  });

  test("train", () => {
    const record = json("train", "recipe.yaml", "-o", "model", "--resume");
    expect(record.steps).toBe(4);
    expect(record.validation.loss).toBeGreaterThan(0);
    expect(readFileSync(at("model/log.jsonl"), "utf8").trimEnd().split("\n")).toHaveLength(4);
  });
});

describe("wrong usage has status 2", () => {
  test("no command, unknown command, unknown option, missing argument, a number that is none", () => {
    for (const args of [
      ["nonsense"],
      ["inspect", "model", "--nonsense"],
      ["inspect"],
      ["generate", "model", "x", "--tokens", "many"],
    ]) {
      const { status, stdout, stderr } = lowbit(...args);
      expect({ args, status, stdout }).toEqual({ args, status: 2, stdout: "" });
      expect(stderr).toMatch(/^error: /);
    }
  });

  test("help has status 0", () => {
    expect(lowbit("--help")).toMatchObject({ status: 0, stderr: "" });
    expect(lowbit("compress", "--help").stdout).toContain("--act-order");
  });
});

describe("bad input has status 2 and one line", () => {
  test("a model that is not there", () => expectRefused(["inspect", "nothing-here"], /nothing-here/));

  test("truncated file", () => {
    cpSync(at("model"), at("cut"), { recursive: true });
    const whole = readFileSync(at("model/model.safetensors"));
    writeFileSync(at("cut/model.safetensors"), whole.subarray(0, whole.length - 10));
    expectRefused(["evaluate", "cut", "--text", "text/a.txt", "--quiet"], /model\.safetensors/);
  });

  test("missing tensor, and shape that does not fit the config", () => {
    cpSync(at("model"), at("other"), { recursive: true });
    const config = JSON.parse(readFileSync(at("model/config.json"), "utf8"));
    writeFileSync(at("other/config.json"), JSON.stringify({ ...config, num_hidden_layers: 3 }));
    expectRefused(["inspect", "other"], /model\.layers\.2\./);
    writeFileSync(at("other/config.json"), JSON.stringify({ ...config, intermediate_size: 48 }));
    expectRefused(["inspect", "other"], /mlp/, /48/);
  });

  test("NaN in weights, named by tensor, and nothing is written", () => {
    cpSync(at("model"), at("nan"), { recursive: true });
    const bytes = readFileSync(at("model/model.safetensors"));
    const header = Number(bytes.readBigUInt64LE(0));
    const { data_offsets } = JSON.parse(bytes.subarray(8, 8 + header).toString())[
      "model.layers.1.mlp.up_proj.weight"
    ];
    bytes.writeUInt16LE(0x7e00, 8 + header + data_offsets[0] + 6);
    writeFileSync(at("nan/model.safetensors"), bytes);
    expectRefused(
      ["compress", "nan", "-o", "nan-out", "--format", "int4", "--quiet"],
      /model\.layers\.1\.mlp\.up_proj\.weight/,
      /NaN/,
    );
    expect(existsSync(at("nan-out"))).toBe(false);
    expectRefused(["evaluate", "nan", "--text", "text/a.txt", "--quiet"], /NaN/);
  });

  test("group that does not divide a row, and nothing is written", () => {
    expectRefused(
      ["compress", "model", "-o", "group-out", "--format", "int4", "--group", "128", "--quiet"],
      /128/,
      /16/,
    );
    expect(existsSync(at("group-out"))).toBe(false);
  });

  test("an unknown format or method, with the nearest known one", () => {
    expectRefused(["compress", "model", "-o", "out", "--format", "int44", "--quiet"], /int4/);
    expectRefused(
      ["compress", "model", "-o", "out", "--format", "int4", "--method", "gptk", "--quiet"],
      /gptq/,
    );
  });

  test("vocabulary larger than the tokenizer", () => {
    cpSync(at("model"), at("vocabulary"), { recursive: true });
    const path = at("vocabulary/tokenizer.json");
    const tokenizer = JSON.parse(readFileSync(path, "utf8"));
    const last = Object.entries(tokenizer.model.vocab).sort(
      ([, a], [, b]) => (b as number) - (a as number),
    )[0][0];
    delete tokenizer.model.vocab[last];
    tokenizer.model.merges.pop();
    writeFileSync(path, JSON.stringify(tokenizer));
    expectRefused(["evaluate", "vocabulary", "--text", "text/a.txt", "--quiet"], /vocabulary/i);
  });

  test("text that is empty, not UTF-8, or not there", () => {
    writeFileSync(at("empty.txt"), " \n");
    writeFileSync(at("bytes.txt"), Buffer.from([0x48, 0xff, 0xfe, 0x41]));
    expectRefused(["evaluate", "model", "--text", "empty.txt", "--quiet"], /empty/);
    expectRefused(["evaluate", "model", "--text", "bytes.txt", "--quiet"], /UTF-8/);
    expectRefused(["evaluate", "model", "--text", "absent.txt", "--quiet"], /absent\.txt/);
  });

  test("text shorter than one context is evaluated, with its real token count", () => {
    writeFileSync(at("short.txt"), "The fox.");
    const { status, stdout } = lowbit("evaluate", "model", "--text", "short.txt", "--json", "--quiet");
    expect(status).toBe(0);
    const { tokens, lossStandardError } = JSON.parse(stdout).models[0].text;
    expect(tokens).toBeGreaterThan(0);
    expect(tokens).toBeLessThan(16);
    expect(lossStandardError).toBeNull();
  });

  test("recipe with an unknown key, named with the nearest known one", () => {
    writeFileSync(at("wrong.yaml"), readFileSync(at("recipe.yaml"), "utf8").replace("batch:", "bach:"));
    expectRefused(["train", "wrong.yaml", "-o", "wrong", "--quiet"], /bach/, /batch/);
    expectRefused(
      ["train", "recipe.yaml", "-o", "wrong", "--set", "schedule.peek=1", "--quiet"],
      /peek/,
      /peak/,
    );
    expect(existsSync(at("wrong"))).toBe(false);
  });

  test("output folder that exists and is not ours stays as it is", () => {
    mkdirSync(at("mine"));
    writeFileSync(at("mine/diary.txt"), "dear diary");
    expectRefused(["compress", "model", "-o", "mine", "--format", "int4", "--quiet"], /mine/);
    expectRefused(["train", "recipe.yaml", "-o", "mine", "--quiet"], /mine/);
    expect(readdirSync(at("mine"))).toEqual(["diary.txt"]);
    expect(readFileSync(at("mine/diary.txt"), "utf8")).toBe("dear diary");
  });

  test("a tokenizer that is needed and not given", () => {
    cpSync(at("model"), at("bare"), { recursive: true });
    rmSync(at("bare/tokenizer.json"));
    expectRefused(["evaluate", "bare", "--text", "text/a.txt", "--quiet"], /--tokenizer/);
  });
});

/** A pseudo terminal: Python is there wherever the addon was built. */
const PTY = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
const havePython = spawnSync("python3", ["-c", "import pty"]).status === 0;

describe.skipIf(!havePython)("on a terminal", () => {
  /** What is written to the screen, as it is; a key is pressed each time that a prompt appears. */
  const screen = async (keys: readonly string[], ...args: string[]) => {
    const child = spawn("python3", ["-c", PTY, process.execPath, cli, ...args], { cwd: folder });
    let shown = "";
    let pressed = 0;
    child.stdout.setEncoding("utf8").on("data", (text) => {
      shown += text;
      // `> ` and the cursor behind it: readline listens.
      if (pressed < keys.length && shown.split("> \x1b[3G").length > pressed + 1)
        child.stdin.write(keys[pressed++]);
    });
    const [status] = await once(child, "close");
    expect(status, shown).toBe(0);
    return shown;
  };
  const options = ["--tokens", "8", "--temperature", "0"];

  test("generate takes the progress bar away before its text, and leaves the text alone", async () => {
    const { text } = JSON.parse(
      lowbit("generate", "model", "The fox", ...options, "--json", "--quiet").stdout,
    );
    const shown = await screen([], "generate", "model", "The fox", ...options);
    const lines = `The fox${text}`.replaceAll("\n", "\r\n");
    const from = shown.indexOf(lines);
    expect(from, shown).toBeGreaterThan(0);
    expect(shown.slice(0, from).endsWith("\r\x1b[K")).toBe(true);
    expect(shown.slice(from + lines.length)).toMatch(/^\r\n\[8 tokens, \d+ tokens\/s, seed \d+\]\r\n$/);
  });

  test("chat prompts, answers, and ends with Ctrl-D", async () => {
    const shown = await screen(["The fox\n", "\x04"], "chat", "model", ...options);
    expect(shown.match(/\[8 tokens, \d+ tokens\/s\]/g)).toHaveLength(1);
  });
});

describe("Ctrl-C while training", () => {
  test("leaves a checkpoint, exits with 130, and --resume finishes", { timeout: 120_000 }, async () => {
    const text = at("text");
    writeFileSync(
      at("long.yaml"),
      stringify({ ...tinyRecipe(text, "float"), steps: 400, checkpointEvery: 1000, validateEvery: 1000 }),
    );
    const child = spawn(process.execPath, [cli, "train", "long.yaml", "-o", "long", "--quiet"], {
      cwd: folder,
    });
    const log = at("long/log.jsonl");
    const lines = () => (existsSync(log) ? readFileSync(log, "utf8").split("\n").length : 0);
    while (lines() < 4 && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGINT");
    const [status] = await once(child, "exit");
    expect(status).toBe(130);
    const done = lines() - 1;
    expect(done).toBeGreaterThan(2);
    expect(done).toBeLessThan(400);

    const finished = lowbit("train", "long.yaml", "-o", "long", "--resume", "--json", "--quiet");
    expect(finished.status).toBe(0);
    expect(JSON.parse(finished.stdout).steps).toBe(400);
    expect(lines() - 1).toBe(400);
  });
});

describe("Ctrl-C while compressing", () => {
  test("keeps what is finished, exits with 130, and the same command goes on", {
    timeout: 120_000,
  }, async () => {
    const compressing = (output: string) =>
      `compress model -o ${output} --method reallm --bits 2 --calibration text/a.txt --backend reference --quiet`.split(
        " ",
      );
    const whole = lowbit(...compressing("whole"));
    expect({ status: whole.status, stderr: whole.stderr }).toEqual({ status: 0, stderr: "" });
    const child = spawn(process.execPath, [cli, ...compressing("broken")], { cwd: folder });
    let stderr = "";
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    const kept = () => (existsSync(at("broken.partial")) ? readdirSync(at("broken.partial")) : []);
    const isKept = (name: string) => /^model.*\.safetensors$/.test(name);
    while (!kept().some(isKept) && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill("SIGINT");
    const [status] = await once(child, "close");
    expect(status, stderr).toBe(130);
    expect(stderr).toMatch(
      /^warning: \d+ matri(x is|ces are) kept in broken\.partial; the same command goes on/,
    );
    expect(stderr).toMatch(/\nlowbit: interrupted\n$/);
    expect(readdirSync(folder).filter((name) => name.includes("broken"))).toEqual(["broken.partial"]);

    const resumed = lowbit(...compressing("broken"));
    expect(resumed.status).toBe(0);
    expect(resumed.stderr).toMatch(/^warning: broken\.partial: \d+ matri(x is|ces are) kept from before/);
    expect(readdirSync(folder).filter((name) => name.includes("broken"))).toEqual(["broken"]);
    for (const name of ["model.safetensors", "config.json"])
      expect(readFileSync(at("broken", name)).equals(readFileSync(at("whole", name))), name).toBe(true);
  });
});
