import { InputError } from "../tensor/tensor.ts";
import type { ByteSource } from "./file.ts";
import { fs, paths } from "./node.ts";

/**
 * Files of this machine: the only place where models meet `node:fs`.
 *
 * What is written appears whole or not at all: bytes go to a temporary name
 * beside the target, are forced to the disk (fsync), and take the target's
 * name by rename. On any failure the temporary is removed and what was there
 * before is untouched.
 */

/** Larger single reads than this fail on some systems. */
const LARGEST_PIECE = 2 ** 30;

/** A file as a ByteSource, open until `close`. Throws an InputError when it is absent or no file. */
export async function openDisk(path: string): Promise<ByteSource> {
  const name = paths().basename(path);
  const failing = (error: unknown): never => {
    throw readError(path, error);
  };
  // Asked before it is opened: a pipe opens when someone writes to it, which may be never.
  const found = await fs().stat(path).catch(failing);
  if (!found.isFile())
    throw new InputError(`${name}: needs a file, met ${found.isDirectory() ? "a folder" : "something else"}`);
  const handle = await fs().open(path, "r").catch(failing);
  const stat = await handle.stat();
  return {
    name,
    byteLength: stat.size,
    async slice(from, to) {
      if (from < 0 || to > stat.size || from > to) {
        throw new RangeError(`${name}: bytes ${from}…${to} asked for, holds ${stat.size}`);
      }
      const bytes = new Uint8Array(to - from);
      for (let done = 0; done < bytes.byteLength; ) {
        const length = Math.min(LARGEST_PIECE, bytes.byteLength - done);
        const { bytesRead } = await handle.read(bytes, done, length, from + done);
        if (bytesRead === 0)
          throw new InputError(`${name}: truncated while it was read: ends at byte ${from + done}`);
        done += bytesRead;
      }
      return bytes;
    },
    close: () => handle.close(),
  };
}

/** All bytes of a small file; files longer than `limit` bytes are refused before they are read. */
export async function readSmall(path: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const file = await openDisk(path);
  try {
    if (file.byteLength > limit) {
      throw new InputError(
        `${file.name}: ${file.byteLength} bytes; at most ${limit} are expected of such a file`,
      );
    }
    return (await file.slice(0, file.byteLength)) as Uint8Array<ArrayBuffer>;
  } finally {
    await file.close();
  }
}

/** V8's longest string: a text of more bytes cannot be held as one. */
const LONGEST_TEXT = 2 ** 29 - 24;

/** All bytes of a text file or recipe. */
export function readText(path: string): Promise<Uint8Array<ArrayBuffer>> {
  return readSmall(path, LONGEST_TEXT);
}

/** What stands at a path. */
export async function whatIs(path: string): Promise<"file" | "folder" | "nothing"> {
  try {
    return (await fs().stat(path)).isDirectory() ? "folder" : "file";
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return "nothing";
    throw readError(path, error);
  }
}

/** Names in a folder, sorted. */
export async function list(folder: string): Promise<string[]> {
  return (await fs().readdir(folder)).sort();
}

/** The part of Node's FileHandle that writing needs; named here, so that the package's types need none of Node's. */
export interface Writable {
  write(
    bytes: Uint8Array,
    from: number,
    length: number,
    at: number,
  ): Promise<{ readonly bytesWritten: number }>;
}

/** Puts bytes at a position of an open file; replaced in tests by one that fails as a full disk does. */
export type WriteAt = (handle: Writable, bytes: Uint8Array, at: number) => Promise<void>;

export const writeAt: WriteAt = async (handle, bytes, at) => {
  for (let done = 0; done < bytes.byteLength; ) {
    const length = Math.min(LARGEST_PIECE, bytes.byteLength - done);
    done += (await handle.write(bytes, done, length, at + done)).bytesWritten;
  }
};

/** Writes a whole file, or leaves the old one as it was. */
export async function writeFileAtomic(
  path: string,
  bytes: Uint8Array,
  write: WriteAt = writeAt,
): Promise<void> {
  const file = await stageFile(path, write);
  try {
    await file.write(bytes, 0);
    await file.commit();
  } finally {
    await file.discard();
  }
}

/** A file under way: it has a temporary name on the same disk until `commit`. */
export interface StagedFile {
  write(bytes: Uint8Array, at: number): Promise<void>;
  /** Puts the file at its place. */
  commit(): Promise<void>;
  /** Removes what was written; does nothing after `commit`. */
  discard(): Promise<void>;
}

/** Begins a file that takes the place of the one at `path`, if there is one, when it is whole. */
export async function stageFile(path: string, write: WriteAt = writeAt): Promise<StagedFile> {
  const failing = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw writeError(path, error);
    }
  };
  await clearRemains(path);
  const temporary = beside(path, "new");
  const file = await failing(() => createFile(temporary, write));
  let open = true;
  let over = false;
  return {
    write: (bytes, at) => failing(() => file.write(bytes, at)),
    commit: () =>
      failing(async () => {
        open = false;
        await file.close();
        await fs().rename(temporary, path);
        over = true;
        await syncFolder(paths().dirname(path));
      }),
    async discard() {
      if (over) return;
      over = true;
      if (open) await file.close().catch(() => {}); // a full disk fails here again
      await fs().rm(temporary, { force: true });
    },
  };
}

/** A file being written, at any position, in any order. */
export interface OpenFile {
  write(bytes: Uint8Array, at: number): Promise<void>;
  /** Forces the bytes to the disk and closes. */
  close(): Promise<void>;
}

async function createFile(path: string, write: WriteAt): Promise<OpenFile> {
  const handle = await fs().open(path, "wx");
  return {
    write: (bytes, at) => write(handle, bytes, at),
    async close() {
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
  };
}

/** A file that grows at its end and may be continued later: a download under way. */
export interface GrowingFile {
  /** Bytes that were there when it was opened. */
  readonly size: number;
  append(bytes: Uint8Array): Promise<void>;
  /** Forces the bytes to the disk and closes. */
  close(): Promise<void>;
}

/** Opens a file to continue it, or makes it, with the folders that lead to it. */
export async function openGrowing(path: string): Promise<GrowingFile> {
  const failing = (error: unknown): never => {
    throw writeError(path, error);
  };
  await fs().mkdir(paths().dirname(path), { recursive: true }).catch(failing);
  const handle = await fs().open(path, "a").catch(failing);
  return {
    size: (await handle.stat()).size,
    append: (bytes) => handle.appendFile(bytes).catch(failing),
    async close() {
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
  };
}

/** Makes a folder, with those that lead to it, where there is none. */
export async function makeFolder(folder: string): Promise<void> {
  await fs()
    .mkdir(folder, { recursive: true })
    .catch((error) => {
      throw writeError(folder, error);
    });
}

/** Gives a finished file its name. */
export async function rename(from: string, to: string): Promise<void> {
  await fs().rename(from, to);
  await syncFolder(paths().dirname(to));
}

/** Removes a file, or a folder with all that is in it; does nothing when there is none. */
export async function remove(path: string): Promise<void> {
  await fs().rm(path, { recursive: true, force: true });
}

/** This file in a folder says that lowbit made the folder and may replace what is in it. */
const MARKER = ".lowbit";
const MARK = new TextEncoder().encode("1\n");

/** Whether lowbit made a folder: by its marker, or by its record.json. */
export async function isOurs(folder: string): Promise<boolean> {
  if ((await whatIs(paths().join(folder, MARKER))) === "file") return true;
  try {
    const bytes = await readSmall(paths().join(folder, "record.json"), 1 << 28);
    return JSON.parse(new TextDecoder().decode(bytes)).record === "lowbit";
  } catch {
    return false;
  }
}

/**
 * Makes sure that a folder is ours to write into: a new or empty one is made
 * and marked, one that lowbit made before is taken as it is, any other is
 * refused with an InputError.
 */
export async function claimFolder(folder: string): Promise<void> {
  if (await checkOutputFolder(folder)) return;
  try {
    await fs().mkdir(folder, { recursive: true });
  } catch (error) {
    throw writeError(folder, error);
  }
  await writeFileAtomic(paths().join(folder, MARKER), MARK);
}

/** True when the folder is ours already, false when there is none or an empty one; else throws an InputError. */
export async function checkOutputFolder(folder: string): Promise<boolean> {
  const found = await whatIs(folder);
  if (found === "nothing") return false;
  const name = paths().basename(paths().resolve(folder));
  if (found === "file")
    throw new InputError(`${name}: output needs a folder, met a file; choose another name`);
  if ((await list(folder)).length === 0) return false;
  if (await isOurs(folder)) return true;
  throw new InputError(
    `${name}: output folder exists and was not made by lowbit; choose another name or remove it`,
  );
}

/** A folder under way: everything goes to a temporary place on the same disk until `commit`. */
export interface StagedFolder {
  /** A file of the new folder, to be written piece by piece; close it before `commit`. */
  create(name: string): Promise<OpenFile>;
  /** A whole small file. */
  put(name: string, bytes: Uint8Array): Promise<void>;
  /** Marks the folder as made by lowbit, where no record.json does. */
  mark(): Promise<void>;
  /** Puts the new content at its place. */
  commit(): Promise<void>;
  /** Removes what was written; what stood at the place before is untouched. */
  discard(): Promise<void>;
}

export interface StageOptions {
  /**
   * `replace` (default): the new folder takes the place of the old one with all
   * that was in it. `beside`: the new files are renamed one by one, in the
   * order in which they were made, into the folder, where other files stay
   * (a training run's log and checkpoints).
   */
  readonly into?: "replace" | "beside";
  readonly write?: WriteAt;
}

/**
 * Begins a new content for `folder`. A folder that exists and is not ours is
 * refused here, before any work is done. A process killed between the two
 * renames of `commit` leaves the old folder as `.NAME.old-…`; the next one to
 * write there gives it its name back.
 */
export async function stageFolder(folder: string, options: StageOptions = {}): Promise<StagedFolder> {
  const { join, dirname, resolve, basename } = paths();
  const { into = "replace", write = writeAt } = options;
  const target = resolve(folder);
  const parent = dirname(target);
  await clearRemains(target);
  const replaces = await checkOutputFolder(target);
  const temporary = beside(target, "new");
  const names: string[] = [];
  const open = new Set<OpenFile>();
  const failing = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw writeError(basename(target), error);
    }
  };
  await failing(() => fs().mkdir(temporary, { recursive: true }));

  const staged: StagedFolder = {
    create: (name) =>
      failing(async () => {
        const file = await createFile(join(temporary, name), write);
        names.push(name);
        open.add(file);
        return {
          write: (bytes, at) => failing(() => file.write(bytes, at)),
          close: () => {
            open.delete(file);
            return failing(() => file.close());
          },
        };
      }),
    async put(name, bytes) {
      const file = await staged.create(name);
      try {
        await file.write(bytes, 0);
      } finally {
        await file.close();
      }
    },
    mark: () => staged.put(MARKER, MARK),
    commit: () =>
      failing(async () => {
        const exists = (await whatIs(target)) === "folder";
        if (into === "beside" && exists) {
          for (const name of names) await fs().rename(join(temporary, name), join(target, name));
          await syncFolder(target);
          await fs().rm(temporary, { recursive: true, force: true });
          return;
        }
        await syncFolder(temporary);
        if (!exists) await fs().rename(temporary, target);
        else if (!replaces) {
          await fs().rmdir(target); // fails, as it should, when someone filled it meanwhile
          await fs().rename(temporary, target);
        } else {
          const old = beside(target, "old");
          await fs().rename(target, old);
          try {
            await fs().rename(temporary, target);
          } catch (error) {
            await fs().rename(old, target);
            throw error;
          }
          await fs().rm(old, { recursive: true, force: true });
        }
        await syncFolder(parent);
      }),
    async discard() {
      for (const file of open) await file.close().catch(() => {}); // a full disk fails here again
      open.clear();
      await fs().rm(temporary, { recursive: true, force: true });
    },
  };
  return staged;
}

/** A hidden name beside a path that nobody else uses. */
function beside(path: string, what: "new" | "old"): string {
  const { dirname, basename, join } = paths();
  const ending = `${what}-${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
  return join(dirname(path), `.${basename(path)}.${ending}`);
}

/**
 * Clears away what a killed process left beside a path, and gives the old
 * folder its name back where one was killed between its two renames.
 */
async function clearRemains(path: string): Promise<void> {
  const { dirname, basename, join } = paths();
  const folder = dirname(path);
  const start = `.${basename(path)}.`;
  const names = await list(folder).catch(() => []); // a missing folder is reported by whoever writes
  for (const name of names) {
    const [, what, pid] =
      (name.startsWith(start) && /^(new|old)-(\d+)-/.exec(name.slice(start.length))) || [];
    if (what === undefined || isRunning(Number(pid))) continue;
    if (what === "old" && (await whatIs(path)) === "nothing") await fs().rename(join(folder, name), path);
    else await remove(join(folder, name));
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0); // sends nothing; asks
    return true;
  } catch (error) {
    return codeOf(error) !== "ESRCH";
  }
}

/** Forces renames in a folder to the disk; Windows has no such call, and needs none. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await fs().open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}

function readError(path: string, error: unknown): Error {
  const name = paths().basename(path);
  switch (codeOf(error)) {
    case "ENOENT":
    case "ENOTDIR":
      return new InputError(`${name}: no such file or folder`);
    case "EACCES":
    case "EPERM":
      return new InputError(`${name}: may not be read; check its permissions`);
    default:
      return error as Error;
  }
}

/** What a failed write means to a person, as an InputError where it can be helped; else the error itself. */
export function writeError(path: string, error: unknown): Error {
  const name = paths().basename(path);
  switch (codeOf(error)) {
    case "ENOSPC":
    case "EDQUOT":
      return new InputError(`${name}: the disk is full; nothing was changed; make room or write elsewhere`);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new InputError(`${name}: may not be written; check its permissions or write elsewhere`);
    case "ENOENT":
    case "ENOTDIR":
      return new InputError(`${name}: the folder to write into does not exist`);
    default:
      return error as Error;
  }
}
