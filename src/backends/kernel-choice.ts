import { lowbitVersion } from "../record/version.ts";
import type { Matrix } from "../tensor/tensor.ts";
import { isNode } from "./node.ts";

/** Ways to multiply a packed matrix by int8 activations, by their numbers in abi.h. All give the same bits there. */
export const integerKernels = ["dot", "table", "planes"] as const;
export type IntegerKernel = (typeof integerKernels)[number];

/** Another kernel than the default one, `dot`, needs to take less than this part of its time. */
const CLEAR_WIN = 0.95;
/** A kernel that takes so many times as long at first is not tried again. */
const HOPELESS = 2;
const ROUNDS = 7;
/** Calls of a round: some timers tick in steps of 0.1 ms. */
const CALLS = 3;
/** Fewest rows of a matrix of codes for which tables pay, and most numbers of its book for each row. */
const LEAST_ROWS = 32;
const NUMBERS_BY_ROW = 8;

/** Which kernel is fastest by a clock, by a few milliseconds of each in turns; `candidates` begins with the default. */
export function fastestKernel(
  candidates: ReadonlyMap<IntegerKernel, () => void>,
  now: () => number = () => performance.now(),
): IntegerKernel {
  const seconds = (run: () => void) => {
    const start = now();
    for (let i = 0; i < CALLS; i++) run();
    return now() - start;
  };
  const times = new Map<IntegerKernel, number[]>();
  for (const run of candidates.values()) run();
  const first = [...candidates].map(([name, run]) => [name, seconds(run)] as const);
  const worst = HOPELESS * first[0][1];
  for (const [name, time] of first) if (time <= worst) times.set(name, []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, list] of times) list.push(seconds(candidates.get(name)!));
  }
  const [[standard, list], ...others] = [...times];
  let [best, least] = [standard, CLEAR_WIN * median(list)];
  for (const [name, more] of others) {
    if (median(more) < least) [best, least] = [name, median(more)];
  }
  return best;
}

/** Codes with a book, as kernels see them. */
interface Coded {
  readonly rows: number;
  readonly cols: number;
  /** Of a row of codes. */
  readonly rowBytes: number;
  /** Columns that share a scale. */
  readonly group: number;
  readonly codeBits: number;
  readonly book: Matrix;
  readonly down?: boolean;
}

/**
 * How a few rows of x are multiplied by codes with a book: `table` looks up sums of x over each byte of codes
 * (book-linear.h), `dot` decodes. Tables need rows and groups of whole bytes. They pay where W has rows enough to look up
 * what is made for each byte: as many as the book has entries, more where those are long (bench/books.ts). A rule on the
 * matrix alone: a row of x gets the same bits among others as by itself.
 */
export function bookKernel(
  { rows, cols, rowBytes, group, codeBits, book, down }: Coded,
  wanted?: IntegerKernel,
): IntegerKernel {
  const weights = (8 / codeBits) * book.cols; // of a byte
  const fits =
    !down && cols > 0 && 8 % codeBits === 0 && cols === rowBytes * weights && group % weights === 0;
  const pays = rows >= Math.max(LEAST_ROWS, book.rows, (book.rows * book.cols) / NUMBERS_BY_ROW);
  return fits && (wanted ?? (pays ? "table" : "dot")) === "table" ? "table" : "dot";
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
}

/** What was chosen by formats' names, for one processor, body and number of threads. */
export interface Choices {
  get(format: string): IntegerKernel | undefined;
  set(format: string, kernel: IntegerKernel): void;
}

const inProcess = new Map<string, Choices>();

/**
 * The choices for a body (`native, AVX-512, 2 threads`): of this process, and in Node those that earlier ones left in the
 * folder. A file that cannot be read, or is of another processor or version, counts as none; one that cannot be written
 * is not missed.
 */
export function choicesFor(body: string, folder = isNode() ? cacheFolder() : undefined): Choices {
  const key = `${folder} ${body}`;
  let choices = inProcess.get(key);
  if (!choices) {
    choices = folder === undefined ? new Map<string, IntegerKernel>() : new FileChoices(folder, body);
    inProcess.set(key, choices);
  }
  return choices;
}

/** Forgets what this process has chosen or read: for tests. */
export function forgetChoices(): void {
  inProcess.clear();
}

class FileChoices implements Choices {
  readonly #folder: string;
  readonly #path: string;
  /** What has to be the same for choices to hold. */
  readonly #head: Readonly<Record<string, string>>;
  readonly #kernels: Map<string, IntegerKernel>;

  constructor(folder: string, body: string) {
    const { join } = process.getBuiltinModule("node:path");
    const { cpus } = process.getBuiltinModule("node:os");
    this.#folder = folder;
    this.#path = join(folder, `kernels-${body.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.json`);
    this.#head = { lowbit: lowbitVersion, node: process.version, processor: cpus()[0]?.model ?? "", body };
    this.#kernels = new Map(this.#read());
  }

  get(format: string): IntegerKernel | undefined {
    return this.#kernels.get(format);
  }

  set(format: string, kernel: IntegerKernel): void {
    // Another process may have chosen for other formats meanwhile.
    for (const [other, chosen] of this.#read())
      if (!this.#kernels.has(other)) this.#kernels.set(other, chosen);
    this.#kernels.set(format, kernel);
    const { mkdirSync, renameSync, writeFileSync } = process.getBuiltinModule("node:fs");
    try {
      mkdirSync(this.#folder, { recursive: true });
      const temporary = `${this.#path}.${process.pid}.${process.hrtime.bigint()}`;
      writeFileSync(
        temporary,
        `${JSON.stringify({ ...this.#head, kernels: Object.fromEntries(this.#kernels) }, null, 2)}\n`,
      );
      renameSync(temporary, this.#path);
    } catch {
      // The next process measures again.
    }
  }

  #read(): [string, IntegerKernel][] {
    try {
      const { kernels, ...head } = JSON.parse(
        process.getBuiltinModule("node:fs").readFileSync(this.#path, "utf8"),
      );
      if (Object.entries(this.#head).some(([name, value]) => head[name] !== value)) return [];
      return Object.entries(kernels as Record<string, IntegerKernel>).filter(([, kernel]) =>
        integerKernels.includes(kernel),
      );
    } catch {
      return [];
    }
  }
}

/** The folder of files/hub.ts; none for kernels of another build (LOWBIT_ADDON), whose times are not this one's. */
function cacheFolder(): string | undefined {
  if (process.env.LOWBIT_ADDON) return undefined;
  const { join } = process.getBuiltinModule("node:path");
  const { homedir } = process.getBuiltinModule("node:os");
  try {
    return (
      process.env.LOWBIT_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "lowbit")
    );
  } catch {
    return undefined; // no home
  }
}
