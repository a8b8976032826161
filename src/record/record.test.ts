import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { baseName, fingerprint, startRecord } from "./make.ts";
import { pauses } from "./pause.ts";
import { lowbitVersion } from "./version.ts";

test("the version is that of package.json", () => {
  const file = readFileSync(join(import.meta.dirname, "../../package.json"), "utf8");
  expect(JSON.parse(file).version).toBe(lowbitVersion);
});

test("a fingerprint is the SHA-256 of the bytes (FIPS 180-2, B.1)", async () => {
  const { sha256, bytes } = await fingerprint("abc", new TextEncoder().encode("abc"));
  expect(sha256).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  expect(bytes).toBe(3);
});

test("a record holds the result's fields beside its own", () => {
  const model = { name: "a", bytes: 1, sha256: "00" };
  const finish = startRecord("evaluate", { context: 64 });
  const record = finish(
    { name: "native", threads: 2 },
    { models: [model], seed: 3 },
    { models: [{ ...model, loss: 1 }] },
  );
  expect(record).toMatchObject({
    record: "lowbit",
    version: 1,
    verb: "evaluate",
    options: { context: 64 },
    seed: 3,
    models: [{ name: "a", loss: 1 }],
    environment: { lowbit: lowbitVersion, backend: "native", threads: 2 },
  });
  expect(record.seconds).toBeGreaterThanOrEqual(0);
});

test.each([
  ["/home/me/models/small.bin", "small.bin"],
  ["C:\\models\\small\\", "small"],
  ["hf:owner/name@main", "hf:owner/name@main"],
  ["plain", "plain"],
])("%s is recorded as %s", (path, name) => expect(baseName(path)).toBe(name));

test("a pause throws the signal's reason once it is aborted", async () => {
  const controller = new AbortController();
  const pause = pauses({ signal: controller.signal });
  await pause();
  controller.abort(new Error("enough"));
  await expect(pause()).rejects.toThrow("enough");
});
