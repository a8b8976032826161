import type { ByteSource } from "./file.ts";

/** Bytes that are in memory already: what a browser was given, or a test has made. */
export function memorySource(bytes: Uint8Array, name = "memory"): ByteSource {
  return {
    name,
    byteLength: bytes.byteLength,
    async slice(from, to) {
      if (from < 0 || to > bytes.byteLength || from > to) {
        throw new RangeError(`${name}: bytes ${from}…${to} asked for, holds ${bytes.byteLength}`);
      }
      return bytes.slice(from, to);
    },
    async close() {},
  };
}
