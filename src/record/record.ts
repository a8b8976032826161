/** Something that was read or made, named by its content. */
export interface Fingerprint {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * What was done, with what, and what came out: the one thing that tables,
 * reports and plots are drawn from. The result's fields stand beside the
 * header's; a result whose fields are called `models` or `seconds` says more
 * about the same thing. A newer `version` than ours is refused.
 */
export type Record<Result extends object = object> = Omit<Header, keyof Result> & Result;

export interface Header {
  readonly record: "lowbit";
  readonly version: 1;
  /** Verb: `compress`, `evaluate`, … */
  readonly verb: string;
  /** Options as given, defaults filled in; no paths of this machine. */
  readonly options: unknown;
  readonly seed?: number;
  /** Models that were read. */
  readonly models: readonly Fingerprint[];
  /** Other files that were read: texts, recipes. */
  readonly data: readonly Fingerprint[];
  readonly environment: Environment;
  /** Start of the work, ISO 8601. */
  readonly started: string;
  readonly seconds: number;
}

export interface Environment {
  readonly lowbit: string;
  readonly runtime: string;
  readonly platform: string;
  readonly backend: string;
  readonly threads: number;
}

/** One event for everything that takes long; `done` of `total` in `unit`. */
export interface Progress {
  readonly task: string;
  readonly done: number;
  readonly total: number;
  readonly unit: string;
  /** A short state worth showing: a loss, a layer's name. */
  readonly note?: string;
}

/** What every verb takes beside its own options. */
export interface Job {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** A sentence that a person should read: a fallback, a suspicious number. */
  readonly onWarning?: (message: string) => void;
}
