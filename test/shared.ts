import { existsSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "../../shared/data");

/** Absolute path of a file below ../shared/data, the real models and texts that are not part of the project. */
export function shared(...parts: string[]): string {
  return join(root, ...parts);
}

/** False where ../shared is absent; tests that need it say so and are skipped. */
export const haveShared = existsSync(root);
