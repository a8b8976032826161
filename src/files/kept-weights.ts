import { checkFinite } from "../formats/index.ts";
import { InputError, ShapeError, UnsupportedError } from "../tensor/tensor.ts";
import { type Part, partsOf, type Weight } from "../tensor/weight.ts";
import { claimFolder, isOurs, list, openDisk, remove, whatIs, writeFileAtomic } from "./disk.ts";
import type { ByteSource, JsonObject } from "./file.ts";
import { parseJson } from "./json.ts";
import { paths } from "./node.ts";
import { LOWBIT_VERSION, outlineOf, storedName } from "./outline.ts";
import { encodeSafetensors, readHeader } from "./safetensors.ts";
import { safetensorsSource } from "./safetensors-source.ts";

export interface KeptOptions<Note> {
  /** Of all that decides what the weights become: those with another one are of no use. */
  readonly key: string;
  /** What was noted beside a weight, once both are found to fit; an InputError says what does not. */
  check(name: string, weight: Weight, note: JsonObject): Note;
  readonly onWarning?: (message: string) => void;
}

/** Finished weights of a piece of work that may be interrupted. */
export interface KeptWeights<Note> {
  /** How many there are. */
  readonly count: number;
  /** What a person calls the folder. */
  readonly name: string;
  /** A weight with its note; undefined where there is none, or a damaged one, which is warned of. */
  get(name: string): Promise<{ readonly weight: Weight; readonly note: Note } | undefined>;
  /** Keeps a weight; it is on the disk when this returns. */
  put(name: string, weight: Weight, note: object): Promise<void>;
  /** Removes the folder. */
  remove(): Promise<void>;
}

/**
 * Opens the folder beside `output` in which finished weights stay until the output is in place: OUTPUT.partial, one
 * safetensors file a weight with its arrays by the names of a model folder, and in its metadata
 *
 *   key     that of the options
 *   entry   the weight's entry in `quantization_config` (outline.ts); absent for a plain array
 *   note    JSON of its maker
 *
 * Files appear whole or not at all. They are read as carefully as a stranger's; damaged ones are removed with a warning,
 * and all of them where one has another key. The folder is made by the first `put`. One that holds anything else is
 * refused.
 */
export async function keptWeights<Note>(
  output: string,
  { key, check, onWarning }: KeptOptions<Note>,
): Promise<KeptWeights<Note>> {
  const { resolve, basename, join } = paths();
  const folder = `${resolve(output)}.partial`;
  const own = basename(folder);
  const fileOf = (name: string) => join(folder, `${name}${ENDING}`);
  const damaged = async (name: string, error: unknown) => {
    const { message } = expected(error);
    onWarning?.(`${own}: ${name}${ENDING} is damaged (${message}); this matrix is made again`);
    await remove(fileOf(name));
  };

  const names = new Set<string>();
  for (const name of await namesIn(folder)) {
    try {
      const { metadata } = await reading(fileOf(name), readHeader);
      if (metadata.key !== key) {
        onWarning?.(
          `${own}: holds matrices of other settings, another model, text or version; they are removed, and all begins anew`,
        );
        await remove(folder);
        names.clear();
        break;
      }
      names.add(name);
    } catch (error) {
      await damaged(name, error);
    }
  }
  let claimed = false;
  return {
    name: own,

    get count() {
      return names.size;
    },

    async get(name) {
      if (!names.has(name)) return undefined;
      try {
        return await reading(fileOf(name), async (file) => {
          const { entry, note = "{}" } = (await readHeader(file)).metadata;
          const weights =
            entry === undefined ? {} : { [name]: parseJson(utf8(entry), `${file.name}: entry`) };
          const source = await safetensorsSource([{ file }], {
            quant_method: "lowbit",
            version: LOWBIT_VERSION,
            weights,
          });
          if (source.names.join() !== name) throw new InputError(`${file.name}: holds another weight`);
          const weight = await source.read(name);
          checkFinite(file.name, name, weight);
          return { weight, note: check(name, weight, parseJson(utf8(note), `${file.name}: note`)) };
        });
      } catch (error) {
        names.delete(name);
        await damaged(name, error);
        return undefined;
      }
    },

    async put(name, weight, note) {
      if (!claimed) await claimFolder(folder);
      claimed = true;
      const { entry, parts: outlines } = outlineOf(name, weight);
      const stored = new Set(outlines.map((part) => part.name));
      const parts = new Map<string, Part>();
      for (const [path, part] of partsOf(weight)) {
        const at = storedName(name, weight, path);
        if (stored.has(at)) parts.set(at, part);
      }
      const bytes = encodeSafetensors(parts, {
        key,
        ...(entry ? { entry: JSON.stringify(entry) } : {}),
        note: JSON.stringify(note),
      });
      await writeFileAtomic(fileOf(name), bytes);
      names.add(name);
    },

    async remove() {
      names.clear();
      await remove(folder);
    },
  };
}

const ENDING = ".safetensors";

/** Names of the weights in a folder; an InputError where it holds what we would not have put there. */
async function namesIn(folder: string): Promise<string[]> {
  const found = await whatIs(folder);
  const files = found === "folder" ? await list(folder) : [];
  // Hidden are the mark and what a killed process left.
  const others = files.filter((file) => !file.startsWith(".") && !file.endsWith(ENDING));
  if (found === "file" || others.length > 0 || (files.length > 0 && !(await isOurs(folder)))) {
    const name = paths().basename(folder);
    throw new InputError(
      `${name}: finished matrices are kept under this name while a model is compressed, and something else is there; move it away`,
    );
  }
  return files.flatMap((file) =>
    file.startsWith(".") || !file.endsWith(ENDING) ? [] : [file.slice(0, -ENDING.length)],
  );
}

/** Some work with an open file. */
async function reading<T>(path: string, work: (file: ByteSource) => Promise<T>): Promise<T> {
  const file = await openDisk(path);
  try {
    return await work(file);
  } finally {
    await file.close();
  }
}

/** An error of a damaged file; throws every other. */
function expected(error: unknown): Error {
  if (error instanceof InputError || error instanceof UnsupportedError || error instanceof ShapeError)
    return error;
  throw error;
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
