import { fs, paths } from "../files/node.ts";
import { InputError } from "../tensor/tensor.ts";

/** What every calibration sequence looks like between two blocks: sequence j is (tokens of j, dim) floats. */
export interface Activations {
  read(j: number): Promise<Float32Array>;
  /** Replaces what sequence j was; the size stays. */
  write(j: number, data: Float32Array): Promise<void>;
  close(): Promise<void>;
}

/**
 * Room for sequences of the given numbers of floats: in memory up to
 * `limit` bytes, beyond that in a temporary file, which `close` removes.
 */
export async function activations(sizes: readonly number[], limit: number): Promise<Activations> {
  const bytes = 4 * sizes.reduce((sum, size) => sum + size, 0);
  return bytes <= limit ? inMemory() : await onDisk(sizes);
}

function inMemory(): Activations {
  const held: Float32Array[] = [];
  return {
    read: async (j) => held[j],
    async write(j, data) {
      held[j] = data;
    },
    async close() {},
  };
}

// Node's modules are asked for when they are used, so that a browser bundle of the package holds no import of them.
async function onDisk(sizes: readonly number[]): Promise<Activations> {
  const { mkdtemp, open, rm } = fs();
  const { join } = paths();
  const folder = await mkdtemp(join(process.getBuiltinModule("node:os").tmpdir(), "lowbit-activations-"));
  const file = await open(join(folder, "sequences"), "w+");
  const places = [0];
  for (const size of sizes) places.push(places[places.length - 1] + 4 * size);
  return {
    async read(j) {
      const data = new Float32Array(sizes[j]);
      const bytes = new Uint8Array(data.buffer);
      for (let done = 0; done < bytes.length; ) {
        const { bytesRead } = await file.read(bytes, done, bytes.length - done, places[j] + done);
        if (bytesRead === 0) throw new Error(`activations: sequence ${j} was not written`);
        done += bytesRead;
      }
      return data;
    },
    async write(j, data) {
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      try {
        for (let done = 0; done < bytes.length; ) {
          done += (await file.write(bytes, done, bytes.length - done, places[j] + done)).bytesWritten;
        }
      } catch (error) {
        throw new InputError(
          `${folder}: calibration activations cannot be written (${(error as Error).message}); make room, or set TMPDIR to a disk that has some`,
        );
      }
    },
    async close() {
      await file.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
