import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const folder = mkdtempSync(join(tmpdir(), "lowbit-convert-cli-"));
afterAll(() => rmSync(folder, { recursive: true }));

function lowbit(...args: string[]) {
  const bin = join(import.meta.dirname, "../bin/lowbit.mjs");
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], {
    encoding: "utf8",
    cwd: folder,
  });
  return { status, stdout, stderr };
}

describe("lowbit convert", () => {
  test("says what became of each tensor, and does not replace a file unasked", () => {
    const made = lowbit("convert", "bundled:trilm", "-o", "trilm.gguf", "--json");
    expect(made).toMatchObject({ status: 0 });
    expect(JSON.parse(made.stdout)).toMatchObject({
      verb: "convert",
      options: { model: "bundled:trilm", output: "trilm.gguf", to: "gguf" },
      container: { from: "safetensors", to: "GGUF version 3" },
      lossless: true,
      files: ["trilm.gguf"],
    });
    const again = lowbit("convert", "bundled:trilm", "-o", "trilm.gguf");
    expect(again).toEqual({
      status: 2,
      stdout: "",
      stderr: "lowbit: trilm.gguf: is there already; choose another name, or replace it with --force\n",
    });
    const forced = lowbit(
      "convert",
      "bundled:trilm",
      "-o",
      "trilm.gguf",
      "--force",
      "--quiet",
      "--type",
      "q4_0",
    );
    expect(forced.status).toBe(0);
    expect(forced.stderr).toMatch(
      /^warning: bundled:trilm: .* was stored as q8_0 already; rounding it to q4_0 added to its error\n$/,
    );
    expect(forced.stdout).toMatch(/tq2_0 +q4_0 +rounded/);
    expect(forced.stdout).toMatch(/30 of 39 tensors were rounded\n$/);
    const seen = JSON.parse(lowbit("inspect", "trilm.gguf", "--json").stdout);
    expect(seen).toMatchObject({ container: "GGUF version 3", architecture: "llama" });
    expect(readdirSync(folder)).toEqual(["trilm.gguf"]);
  });

  test("wrong usage and bad input end with status 2 and one line", () => {
    for (const [args, line] of [
      [
        ["bundled:trilm", "-o", "x.gguf", "--type", "q9"],
        /^lowbit: convert: GGUF type "q9" is not written; /,
      ],
      [
        ["bundled:trilm", "-o", "x.bin", "--type", "q8_0"],
        /^lowbit: convert: llama2\.c checkpoints are written in f32/,
      ],
      [["nothing.gguf", "-o", "x.gguf"], /^lowbit: nothing\.gguf: no such file or folder/],
      [
        ["bundled:trilm", "-o", "nowhere/x.gguf"],
        /^lowbit: x\.gguf: the folder to write into does not exist\n$/,
      ],
    ] as const) {
      const { status, stderr } = lowbit("convert", ...args);
      expect(status).toBe(2);
      expect(stderr).toMatch(line);
      expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    }
    expect(lowbit("convert", "bundled:trilm", "-o", "x", "--to", "onnx").status).toBe(2);
    expect(lowbit("convert", "bundled:trilm").status).toBe(2);
  });
});
