import { list, openDisk, whatIs } from "../files/disk.ts";
import { fingerprintOf } from "../files/fingerprint.ts";
import { type HubOptions, hubDataset } from "../files/hub.ts";
import { paths } from "../files/node.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import type { DataRecipe } from "./data.ts";

/** A file of a text. */
export interface SourceFile {
  readonly path: string;
  /** Below the folder that was named; with `/` on every system. */
  readonly name: string;
  readonly kind: "text" | "jsonl" | "parquet";
}

/** The files of a text, by path, and which of their documents are held out. */
export interface Corpus {
  readonly files: readonly SourceFile[];
  readonly heldOut: DataRecipe["heldOut"];
  /** Files before this one are the text, those from it on are of another text that is held out. */
  readonly own: number;
}

/**
 * The files of a file, a folder or a data set, sorted by name (by code units),
 * and behind them those of another that is held out. No text has no files. An
 * InputError when there are none, or a name that is held out is not among
 * them. Hidden files and folders, whose names begin with a dot, are left out.
 */
export async function findCorpus(
  text: string | undefined,
  heldOut: DataRecipe["heldOut"],
  options: HubOptions = {},
): Promise<Corpus> {
  const own = text === undefined ? [] : await filesOf("data.text", text, options);
  const others = "text" in heldOut ? await filesOf("data.heldOut.text", heldOut.text, options) : [];
  const files = [...own, ...others];
  if (Array.isArray(heldOut)) {
    const named = heldOut.map((name) => ({ name, files: files.filter((file) => isNamed(file, name)) }));
    for (const { name, files: found } of named) {
      if (found.length === 0)
        throw new InputError(`data.heldOut: ${name} is not among the ${files.length} files of ${text}`);
    }
    if (new Set(named.flatMap(({ files }) => files)).size === files.length) {
      throw new InputError(`data.heldOut: all files of ${text} are held out; leave some to train on`);
    }
  }
  return { files, heldOut, own: own.length };
}

/**
 * Whether a document is held out: by its file's name, or because its place,
 * the first 8 bytes of the SHA-256 of its text as a fraction of 2⁶⁴, is below
 * the share.
 */
export function isHeldOut({ files, heldOut, own }: Corpus): (file: number, place: number) => boolean {
  if ("share" in heldOut) return (_, place) => place < heldOut.share;
  if ("text" in heldOut) return (file) => file >= own;
  const held = files.map((file) => heldOut.some((name) => isNamed(file, name)));
  return (file) => held[file];
}

/** Files of which nothing is held out come first, as records list them. */
export function trainingFirst(corpus: Corpus): readonly SourceFile[] {
  const { files, heldOut } = corpus;
  if ("share" in heldOut) return files;
  const held = isHeldOut(corpus);
  const of = (side: boolean) => files.filter((_, f) => held(f, 0) === side);
  return [...of(false), ...of(true)];
}

function isNamed(file: SourceFile, name: string): boolean {
  return file.name === name || paths().basename(file.path) === name;
}

async function filesOf(where: string, text: string, options: HubOptions): Promise<SourceFile[]> {
  const { basename } = paths();
  if (text.startsWith("hf:")) {
    const found = await hubDataset(text, options);
    return found.map(({ path, name }) => ({ path, name, kind: kindOf(name) }));
  }
  const found = await whatIs(text);
  if (found === "nothing") throw new InputError(`${where}: ${text} does not exist`);
  if (found === "file") return [{ path: text, name: basename(text), kind: kindOf(text) }];
  const files = await filesBelow(text, "");
  if (files.length === 0) throw new InputError(`${where}: folder ${text} holds no files`);
  return files.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function filesBelow(folder: string, prefix: string): Promise<SourceFile[]> {
  const files: SourceFile[] = [];
  for (const entry of await list(folder)) {
    if (entry.startsWith(".")) continue;
    const path = paths().join(folder, entry);
    const found = await whatIs(path);
    if (found === "folder") files.push(...(await filesBelow(path, `${prefix}${entry}/`)));
    else if (found === "file") files.push({ path, name: prefix + entry, kind: kindOf(entry) });
  }
  return files;
}

function kindOf(name: string): SourceFile["kind"] {
  if (/\.(jsonl|ndjson)$/i.test(name)) return "jsonl";
  return /\.parquet$/i.test(name) ? "parquet" : "text";
}

/** Size and hash of each file, read once, in constant memory. */
export async function fingerprints(
  files: readonly { readonly path: string; readonly name: string }[],
  { signal }: Job = {},
): Promise<Fingerprint[]> {
  const prints: Fingerprint[] = [];
  for (const { path, name } of files) {
    signal?.throwIfAborted();
    const source = await openDisk(path);
    try {
      prints.push({ name, ...(await fingerprintOf(undefined, [source])) });
    } finally {
      await source.close();
    }
  }
  return prints;
}
