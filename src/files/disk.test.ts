import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  claimFolder,
  isOurs,
  openDisk,
  openGrowing,
  readSmall,
  stageFolder,
  type WriteAt,
  writeAt,
  writeFileAtomic,
} from "./disk.ts";
import type { ByteSource } from "./file.ts";
import { readHeader, readPart } from "./safetensors.ts";
import { safetensorsSource } from "./safetensors-source.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const bytes = (text: string) => new TextEncoder().encode(text);

/** A disk with room for so many bytes. */
function diskOf(room: number): WriteAt {
  let left = room;
  return async (handle, data, at) => {
    const some = data.subarray(0, left);
    left -= some.byteLength;
    await writeAt(handle, some, at);
    if (some.byteLength < data.byteLength)
      throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  };
}

test("a file is written whole or stays as it was, and no temporary one is left", async () => {
  const path = join(folder, "file");
  await writeFileAtomic(path, bytes("old"));
  await expect(writeFileAtomic(path, bytes("longer than four"), diskOf(4))).rejects.toThrow(
    "file: the disk is full; nothing was changed; make room or write elsewhere",
  );
  expect(readFileSync(path, "utf8")).toBe("old");
  await writeFileAtomic(path, bytes("new"));
  expect(readFileSync(path, "utf8")).toBe("new");
  expect(readdirSync(folder)).toEqual(["file"]);
});

test.skipIf(!existsSync("/dev/full"))("a really full disk fails as the tests' full disk does", async () => {
  const full = await open("/dev/full", "w");
  await expect(writeAt(full, bytes("x"), 0)).rejects.toMatchObject({ code: "ENOSPC" });
  await full.close();
});

test("a folder that does not exist is one line", async () => {
  await expect(writeFileAtomic(join(folder, "none", "file"), bytes("x"))).rejects.toThrow(
    "file: the folder to write into does not exist",
  );
  await expect(openDisk(join(folder, "none"))).rejects.toThrow("none: no such file or folder");
  await expect(openDisk(folder)).rejects.toThrow("needs a file, met a folder");
});

test("claimFolder marks new and empty folders, takes ours, refuses others", async () => {
  mkdirSync(join(folder, "empty"));
  for (const name of ["new/deep", "empty"]) {
    await claimFolder(join(folder, name));
    expect(await isOurs(join(folder, name))).toBe(true);
    await claimFolder(join(folder, name));
  }
  mkdirSync(join(folder, "theirs"));
  writeFileSync(join(folder, "theirs", "thesis.tex"), "\\begin");
  await expect(claimFolder(join(folder, "theirs"))).rejects.toThrow(
    "theirs: output folder exists and was not made by lowbit",
  );
  await expect(claimFolder(join(folder, "theirs", "thesis.tex"))).rejects.toThrow(
    "needs a folder, met a file",
  );
});

test("a folder filled by someone else while ours was made is not touched", async () => {
  const target = join(folder, "out");
  const staged = await stageFolder(target);
  await staged.put("ours", bytes("1"));
  mkdirSync(target);
  writeFileSync(join(target, "theirs"), "2");
  await expect(staged.commit()).rejects.toThrow();
  await staged.discard();
  expect(readdirSync(target)).toEqual(["theirs"]);
  expect(readdirSync(folder)).toEqual(["out"]);
});

test("a growing file goes on where it ended", async () => {
  const path = join(folder, "a", "b.partial");
  for (const [size, text] of [
    [0, "one"],
    [3, "two"],
  ] as const) {
    const file = await openGrowing(path);
    expect(file.size).toBe(size);
    await file.append(bytes(text));
    await file.close();
  }
  expect(readFileSync(path, "utf8")).toBe("onetwo");
});

test("readSmall refuses what is larger than such files are", async () => {
  writeFileSync(join(folder, "config.json"), "x".repeat(11));
  await expect(readSmall(join(folder, "config.json"), 10)).rejects.toThrow(
    "config.json: 11 bytes; at most 10 are expected",
  );
});

/** A ByteSource that counts what is read of another. */
function counting(source: ByteSource): ByteSource & { count: number } {
  return {
    ...source,
    count: 0,
    slice(from, to) {
      this.count += to - from;
      return source.slice(from, to);
    },
  };
}

test("beyond 2 GiB: a tensor there is read alone, and the headers alone for its description", async () => {
  const path = join(folder, "large.safetensors");
  const far = 3 * 2 ** 30 + 4; // of a sparse file
  const header = JSON.stringify({
    far: { dtype: "F32", shape: [2], data_offsets: [far, far + 8] },
    hole: { dtype: "U8", shape: [far], data_offsets: [0, far] },
  });
  const start = Buffer.alloc(8 + header.length);
  start.writeBigUInt64LE(BigInt(header.length));
  start.write(header, 8);
  const file = openSync(path, "w");
  writeSync(file, start, 0, start.length, 0);
  writeSync(file, Buffer.from(Float32Array.of(1.5, -2.5).buffer), 0, 8, start.length + far);
  closeSync(file);

  const disk = counting(await openDisk(path));
  const { tensors } = await readHeader(disk);
  expect(tensors.get("far")!.from).toBeGreaterThan(2 ** 31);
  const source = await safetensorsSource([{ file: disk }]);
  expect(source.shape("hole")).toEqual([far]);
  expect(source.bytes("hole")).toBe(far);
  expect(disk.count).toBe(2 * start.length);
  const { bytes: data } = await readPart(disk, tensors.get("far")!);
  expect([...new Float32Array(data.buffer)]).toEqual([1.5, -2.5]);
  expect(disk.count).toBe(2 * start.length + 8);
  await disk.close();
});

test("beyond 2 GiB: a staged file is written at any position", async () => {
  const staged = await stageFolder(join(folder, "out"));
  const file = await staged.create("large");
  await file.write(bytes("end"), 2 ** 32 + 1);
  await file.close();
  await staged.commit();
  expect(statSync(join(folder, "out", "large")).size).toBe(2 ** 32 + 4);
  const disk = await openDisk(join(folder, "out", "large"));
  expect(await disk.slice(2 ** 32, 2 ** 32 + 4)).toEqual(bytes("\0end"));
  await disk.close();
});

test("a file that shrinks while it is read is noticed", async () => {
  const path = join(folder, "file");
  writeFileSync(path, "0123456789");
  const disk = await openDisk(path);
  truncateSync(path, 4);
  await expect(disk.slice(0, 10)).rejects.toThrow("file: truncated while it was read: ends at byte 4");
  await disk.close();
});

test("what a killed process left is cleared away; a folder between two names is brought back", async () => {
  // A process that has ended: its number names nobody now.
  const dead = spawnSync(process.execPath, ["-e", ""]).pid;
  const name = (what: string, pid: number) => join(folder, `.out.${what}-${pid}-12345678`);
  mkdirSync(name("new", dead));
  mkdirSync(name("new", process.pid));
  mkdirSync(name("old", dead));
  writeFileSync(join(name("old", dead), ".lowbit"), "1\n");
  writeFileSync(join(folder, `.log.new-${dead}-12345678`), "");
  const staged = await stageFolder(join(folder, "out"));
  await staged.discard();
  expect(readdirSync(folder).toSorted()).toEqual([
    `.log.new-${dead}-12345678`,
    `.out.new-${process.pid}-12345678`,
    "out",
  ]);
  await writeFileAtomic(join(folder, "log"), bytes("x"));
  expect(readdirSync(folder)).not.toContain(`.log.new-${dead}-12345678`);
});
