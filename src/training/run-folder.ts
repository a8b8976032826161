import { claimFolder, list, readSmall, remove, whatIs, writeError, writeFileAtomic } from "../files/disk.ts";
import { fs, paths } from "../files/node.ts";
import { fingerprint } from "../record/make.ts";
import type { Fingerprint } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { differences } from "./differences.ts";
import type { Recipe } from "./recipe.ts";

/**
 * What a run is made of, as hashes: two runs of the same identity on the same
 * backend make the same bits. Paths are not part of it, contents are.
 */
export interface Identity {
  readonly version: 1;
  readonly recipe: string;
  readonly data: string;
  /** Of the model that it starts from, and of its state. */
  readonly start?: string;
}

/** The same with what the hashes are of, so that a difference can be named. */
export interface Contents extends Identity {
  readonly of: { readonly recipe: object; readonly data: object; readonly start: object };
}

export async function contentsOf(
  recipe: Recipe,
  data: readonly Fingerprint[],
  start: readonly Fingerprint[] = [],
): Promise<Contents> {
  const { from: _, ...own } = recipe;
  const { teacher, ...loss } = recipe.loss;
  const { text: __, cache: ___, tokenizer, generate, heldOut, ...rest } = recipe.data;
  const { model: ____, ...writing } = generate ?? {};
  const hashes = (prints: readonly Fingerprint[]) =>
    Object.fromEntries(prints.map(({ name, sha256 }) => [name, sha256]));
  const of = {
    recipe: JSON.parse(
      JSON.stringify({
        ...own,
        loss: { ...loss, taught: teacher !== undefined },
        data: {
          ...rest,
          heldOut: "text" in heldOut ? { text: true } : heldOut,
          ...(generate && { generate: writing }),
          train: tokenizer.train ?? null,
          sample: tokenizer.train ? tokenizer.sample : null,
        },
      }),
    ),
    data: hashes(data),
    // Another name for the same model is the same start.
    start: start.map(({ sha256 }) => sha256),
  };
  return {
    version: 1,
    recipe: await hash(JSON.stringify(ordered(of.recipe))),
    data: await hash(JSON.stringify(data.map(({ name, sha256 }) => [name, sha256]))),
    ...(start.length === 0 ? {} : { start: await hash(JSON.stringify(of.start)) }),
    of,
  };
}

export async function identityOf(
  recipe: Recipe,
  data: readonly Fingerprint[],
  start?: readonly Fingerprint[],
): Promise<Identity> {
  const { of: _, ...identity } = await contentsOf(recipe, data, start);
  return identity;
}

/** The same with the keys of every object in the order of their names, so that the order in which they were written is not content. */
function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, ordered(inner)]),
  );
}

async function hash(text: string): Promise<string> {
  return (await fingerprint("", new TextEncoder().encode(text))).sha256;
}

/** A run's own files, inside the folder that becomes the model. */
export interface RunFolder {
  readonly out: string;
  /** Checkpoints and tokens; removed at the end. */
  readonly work: string;
  readonly log: string;
  /** Whether nothing of the run stood there before. */
  readonly isNew: boolean;
}

const WORK = "work";
const RUN = "run.json";
/** Holds the process that trains. */
const LOCK = "process";
const JSON_LIMIT = 1 << 28;

/**
 * Makes the output folder this run's own. A new run needs a new or empty
 * folder; with `resume` it may hold the same run, begun or (the record is
 * given back then) finished. Everything else is refused in one line.
 */
export async function openRunFolder(
  out: string,
  contents: Contents,
  resume: boolean,
): Promise<RunFolder & { readonly finished?: unknown }> {
  const { join, basename, resolve } = paths();
  const name = basename(resolve(out));
  const folder = { out, work: join(out, WORK), log: join(out, "log.jsonl"), isNew: false };
  const begun = join(folder.work, RUN);
  if ((await whatIs(begun)) === "file") {
    if (!resume)
      throw new InputError(
        `${name}: holds a run that is not finished; continue it with --resume, choose another folder, or remove it`,
      );
    checkIdentity(name, (await readJson(begun)) as Contents, contents);
    await lock(name, folder.work);
    await removeTemporaries(out);
    return folder;
  }
  const record = join(out, "record.json");
  if ((await whatIs(record)) === "file") {
    const finished = (await readJson(record)) as { verb?: string; identity?: Identity };
    if (!resume || finished.verb !== "train" || !finished.identity) {
      throw new InputError(`${name}: holds a model already; choose another folder, or remove it`);
    }
    checkIdentity(name, finished.identity, contents);
    await closeRunFolder(folder); // in case the end was interrupted
    return { ...folder, finished };
  }
  if ((await whatIs(out)) === "folder") await removeTemporaries(out);
  await claimFolder(out);
  await fs().mkdir(folder.work, { recursive: true });
  await lock(name, folder.work);
  await writeFileAtomic(begun, new TextEncoder().encode(`${JSON.stringify(contents)}\n`));
  return { ...folder, isNew: true };
}

/** Lets other processes resume the run. */
export async function unlockRunFolder({ work }: RunFolder): Promise<void> {
  await remove(paths().join(work, LOCK));
}

/** Undoes the beginning of a run that its recipe or text made impossible, so that a better one may take the folder. */
export async function abandonRunFolder(folder: RunFolder): Promise<void> {
  const { out, log } = folder;
  const logged = await fs()
    .stat(log)
    .then(({ size }) => size > 0)
    .catch(() => false);
  if (!folder.isNew || logged) return;
  await closeRunFolder(folder);
  for (const name of ["recipe.yaml", "log.jsonl", "weights.jsonl"]) await remove(paths().join(out, name));
  if ((await list(out)).every((name) => name === ".lowbit")) await fs().rm(out, { recursive: true });
}

/** Throws an InputError where another process trains; one that was killed holds nothing. */
async function lock(name: string, work: string): Promise<void> {
  const path = paths().join(work, LOCK);
  const text = String(process.pid);
  try {
    await fs().writeFile(path, text, { flag: "wx" });
    return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw writeError(path, error);
  }
  const holder = Number(new TextDecoder().decode(await readSmall(path, 64)));
  const { mtimeMs } = await fs().stat(path);
  const { uptime } = process.getBuiltinModule("node:os");
  const sinceStart = mtimeMs > Date.now() - 1000 * uptime(); // a number from before that is of no process now
  if (sinceStart && isRunning(holder)) {
    throw new InputError(
      `${name}: process ${holder} trains in it; wait for it, stop it, or choose another folder`,
    );
  }
  await fs().writeFile(path, text);
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The run is over: its record stands in `out`, and what only a resumed run needs goes. */
export async function closeRunFolder({ work }: RunFolder): Promise<void> {
  await fs().rm(paths().join(work, RUN), { force: true }); // first, so that half a folder is never taken for a run
  await fs().rm(work, { recursive: true, force: true });
}

function checkIdentity(name: string, begun: Identity & Partial<Contents>, now: Contents): void {
  for (const [what, remedy] of [
    ["recipe", "resume with the same recipe and --set"],
    ["data", "resume with the same text, held-out files and tokenizer"],
    ["start", "resume with the same model in from"],
  ] as const) {
    if (begun[what] === now[what]) continue;
    const hashes = [begun[what], now[what]].map((hash) => hash?.slice(0, 12) ?? "none");
    const met =
      (begun.of && differences(begun.of[what], now.of[what])) || `hash ${hashes[0]}, now ${hashes[1]}`;
    throw new InputError(`${name}: the run was begun with another ${what} (${met}); ${remedy}`);
  }
}

/** What a write that was killed left behind. */
async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await list(folder)) {
    if (/^\..*\.new-/.test(name)) await fs().rm(paths().join(folder, name), { recursive: true, force: true });
  }
}

/** What a JSON file of ours says; an InputError when it is damaged. */
export async function readJson(path: string): Promise<unknown> {
  const text = new TextDecoder().decode(await readSmall(path, JSON_LIMIT));
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(`${paths().basename(path)}: is not JSON; the folder is damaged`);
  }
}
