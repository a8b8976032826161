import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { servedAt } from "./serving.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-watch-command-"));
const recipe = join(folder, "recipe.yaml");
writeFileSync(recipe, stringify(tinyRecipe(writeTinyText(folder), "trilm")));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const cli = join(import.meta.dirname, "../../bin/lowbit.mjs");

/** Runs a command; `onUrl` gets the address as soon as it is printed, and a way to press Ctrl-C. */
function lowbit(args: string[], onUrl?: (url: string, interrupt: () => void) => void) {
  return new Promise<{ status: number | null; stderr: string; stdout: string }>((resolve, reject) => {
    const child = spawn(process.execPath, [cli, ...args], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    let stdout = "";
    child.stdout.on("data", (data) => (stdout += data));
    child.stderr.on("data", (data) => {
      const wasThere = stderr.includes("\n");
      stderr += data;
      const url = /^watch: (\S+)/.exec(stderr)?.[1];
      if (url && !wasThere && stderr.includes("\n")) onUrl?.(url, () => child.kill("SIGINT"));
    });
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stderr, stdout }));
  });
}

test("train --watch says where the page is, ends with the run, and makes the same bits", async () => {
  const common = ["train", recipe, "--backend", "reference", "--quiet"];
  let answered: Promise<unknown> | undefined;
  const watched = await lowbit([...common, "-o", "watched", "--watch", "0"], (url) => {
    answered = fetch(`${url}news`).then((response) => response.json());
  });
  expect(watched).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/^watch: http:\/\/127\.0\.0\.1:\d+\/\n$/),
  });
  expect(await answered).toMatchObject({ name: "watched" });
  expect((await lowbit([...common, "-o", "alone"])).stderr).toBe("");
  expect(bitsOf(join(folder, "watched"))).toEqual(bitsOf(join(folder, "alone")));

  const later = await lowbit(["watch", "alone", "--port", "0"], async (url, interrupt) => {
    const { log, finished } = await (await fetch(`${url}news`)).json();
    expect([log.length, finished]).toEqual([12, true]);
    interrupt();
  });
  expect(later).toMatchObject({ status: 0, stdout: "" });
});

test("what cannot be watched is refused in one line", async () => {
  const absent = await lowbit(["watch", "nowhere"]);
  expect(absent).toMatchObject({
    status: 2,
    stdout: "",
    stderr: expect.stringMatching(/nowhere: no such folder; .*\n$/),
  });
  const port = await lowbit(["train", recipe, "-o", "never", "--watch", "70000"]);
  expect(port).toMatchObject({ status: 2, stderr: expect.stringContaining("from 0 to 65535") });
});

test("another port than the one asked for is said", () => {
  expect(servedAt("http://127.0.0.1:7861/", 7860)).toBe("watch: http://127.0.0.1:7861/ (port 7860 is taken)");
  expect(servedAt("http://127.0.0.1:7861/", true)).toBe("watch: http://127.0.0.1:7861/");
});
