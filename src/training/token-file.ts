import { openDisk, remove, rename, whatIs, writeError } from "../files/disk.ts";
import type { ByteSource } from "../files/file.ts";
import { fs } from "../files/node.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/index.ts";

/**
 * The ids of a text on disk, little-endian, 16 bits each, or 32 where the
 * vocabulary needs them; the start token stands before each document.
 */
export interface TokenFile {
  /** Ids in the file. */
  readonly length: number;
  /** Ids from … to−1. */
  slice(from: number, to: number): Promise<Int32Array>;
  close(): Promise<void>;
}

export async function openTokens(path: string, vocabulary: number): Promise<TokenFile> {
  const source: ByteSource = await openDisk(path);
  const { Ids, width } = storage(vocabulary);
  if (source.byteLength % width !== 0) {
    throw new InputError(
      `${source.name}: ${source.byteLength} bytes are not whole ids of ${width}; delete it and resume`,
    );
  }
  return {
    length: source.byteLength / width,
    async slice(from, to) {
      const bytes = Uint8Array.from(await source.slice(from * width, to * width)); // at the start of its buffer
      return Int32Array.from(new Ids(bytes.buffer));
    },
    close: () => source.close(),
  };
}

/** Writes the ids of documents, unless the file is there: it gets its name last, so it is complete then. */
export async function writeTokens(
  path: string,
  documents: AsyncIterable<string>,
  tokenizer: Tokenizer,
  encode: (text: string) => Int32Array,
): Promise<void> {
  if ((await whatIs(path)) === "file") return;
  const { Ids } = storage(tokenizer.vocabulary);
  const start = tokenizer.bos ?? tokenizer.eos;
  const temporary = `${path}.tmp`;
  try {
    const file = await fs().open(temporary, "w");
    try {
      for await (const text of documents) {
        if (start !== undefined) await file.writeFile(Ids.of(start));
        await file.writeFile(Ids.from(encode(text)));
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await remove(temporary);
    throw writeError(path, error);
  }
}

function storage(vocabulary: number) {
  return vocabulary <= 0x10000 ? { Ids: Uint16Array, width: 2 } : { Ids: Int32Array, width: 4 };
}
