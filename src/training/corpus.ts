import { list, readText, whatIs } from "../files/disk.ts";
import { paths } from "../files/node.ts";
import { decodeText } from "../files/text.ts";
import { fingerprint } from "../record/make.ts";
import type { Fingerprint } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";

/** The files of a text, by path; each one is a document. */
export interface Corpus {
  readonly training: readonly string[];
  readonly heldOut: readonly string[];
}

/** A file, or the files of a folder sorted by name (by code units), split by the names that are held out. */
export async function findCorpus(text: string, heldOut: readonly string[]): Promise<Corpus> {
  const { basename } = paths();
  const found = await whatIs(text);
  if (found === "nothing") throw new InputError(`data.text: ${text} does not exist`);
  const files = found === "folder" ? await filesIn(text) : [text];
  const names = new Set(files.map((path) => basename(path)));
  for (const name of heldOut) {
    if (!names.has(name))
      throw new InputError(`data.heldOut: ${name} is not among the ${names.size} files of ${text}`);
  }
  const held = new Set(heldOut);
  const training = files.filter((path) => !held.has(basename(path)));
  if (training.length === 0) {
    throw new InputError(`data.heldOut: all files of ${text} are held out; leave some to train on`);
  }
  return { training, heldOut: files.filter((path) => held.has(basename(path))) };
}

async function filesIn(folder: string): Promise<string[]> {
  const files: string[] = [];
  for (const name of await list(folder)) {
    const path = paths().join(folder, name);
    if (!name.startsWith(".") && (await whatIs(path)) === "file") files.push(path);
  }
  if (files.length === 0) throw new InputError(`data.text: folder ${folder} holds no files`);
  return files;
}

/** Size and hash of each file. */
export async function fingerprints(files: readonly string[]): Promise<Fingerprint[]> {
  const prints: Fingerprint[] = [];
  for (const path of files) prints.push(await fingerprint(paths().basename(path), await readText(path)));
  return prints;
}

/** The documents, one at a time; an InputError names a file that is empty or not UTF-8. */
export async function* texts(files: readonly string[]): AsyncGenerator<string> {
  for (const path of files) {
    yield decodeText(paths().basename(path), await readText(path));
  }
}
