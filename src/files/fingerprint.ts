import type { ByteSource, JsonObject } from "./file.ts";

const PIECE = 1 << 22;

/** SHA-256 of a config, as JSON, followed by the bytes of the files; in constant memory. */
export async function fingerprintOf(
  config: JsonObject | undefined,
  files: readonly ByteSource[],
): Promise<{ bytes: number; sha256: string }> {
  const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
  if (config !== undefined) hash.update(JSON.stringify(config));
  let bytes = 0;
  for (const file of files) {
    for (let at = 0; at < file.byteLength; at += PIECE) {
      hash.update(await file.slice(at, Math.min(at + PIECE, file.byteLength)));
    }
    bytes += file.byteLength;
  }
  return { bytes, sha256: hash.digest("hex") };
}
