import type { Damage } from "./damage.ts";

/** A file, or a folder of files by name. */
export type Made = Uint8Array | ReadonlyMap<string, Uint8Array>;

/** A reader under attack: a grammar of its files, and all that a command would do with one. */
export interface Target {
  readonly name: string;
  /** A valid file when `damage` is at rate 0. */
  make(damage: Damage): Made;
  /** Opens it, reads all of it, uses it. Throws what the reader throws. */
  read(made: Made): Promise<void>;
  /** How a refusal must begin: with the name of a file. */
  readonly begins: RegExp;
}

/** The bytes of a target that makes one file. */
export function fileOf(made: Made): Uint8Array {
  if (!(made instanceof Uint8Array)) throw new Error("fuzz: needs one file, met a folder");
  return made;
}
