// npm run fuzz -- --reader NAME [--files N] [--seed S] [--from I]
//
// Gives N crafted files to a reader. Each must be read, or refused in one line
// that begins with the file's name; within 2 s, and 64 MB above what the
// process had. Whatever else happens is a finding: it is printed with the
// words that repeat it, and its file is kept, as small as it can be made.
// Exit status 1 when there is one.
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { attack, LIMITS, makeFile, smaller } from "./attack.ts";
import type { Made } from "./target.ts";
import { targets } from "./targets.ts";

interface Work {
  readonly reader: string;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
  /** Number of the file that is being read, for the watch. */
  readonly at: SharedArrayBuffer;
}

interface Finding {
  readonly index: number;
  readonly what: string;
  readonly where: string;
  readonly made: Made;
}

interface Done {
  readonly read: number;
  readonly refused: number;
  readonly findings: readonly Finding[];
}

/** One of each kind is enough. */
const MOST_FINDINGS = 20;

async function work({ reader, seed, from, to, at }: Work): Promise<Done> {
  const target = targets.get(reader)!;
  const now = new Int32Array(at);
  const findings = new Map<string, Finding>();
  let [read, refused] = [0, 0];
  for (let index = from; index < to && findings.size < MOST_FINDINGS; index++) {
    Atomics.store(now, 0, index);
    const { made, valid } = makeFile(target, seed, index);
    const outcome = await attack(target, made);
    if (outcome.kind === "finding") {
      const { what, where } = outcome;
      if (!findings.has(where))
        findings.set(where, { index, what, where, made: await smaller(target, made, where) });
    } else if (outcome.kind === "read") read++;
    else {
      refused++;
      if (!valid || findings.has("valid")) continue;
      const why = await target.read(made).catch((error: Error) => error.message);
      findings.set("valid", {
        index,
        what: `a valid file is refused: ${why}`,
        where: "grammar or reader",
        made,
      });
    }
  }
  Atomics.store(now, 0, -1);
  return { read, refused, findings: [...findings.values()] };
}

/** Runs the work in a thread of its own, which can be stopped where it hangs. */
function watched(data: Omit<Work, "at">): Promise<Done> {
  const at = new SharedArrayBuffer(4);
  const now = new Int32Array(at).fill(-1);
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { ...data, at } satisfies Work,
    // Nothing that a file asks for may hide in a large heap.
    resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 8 },
  });
  return new Promise((resolve) => {
    const ended = (what: string) => {
      clearInterval(watch);
      void worker.terminate();
      const index = Math.max(now[0], 0);
      const { made } = makeFile(targets.get(data.reader)!, data.seed, index);
      resolve({ read: 0, refused: 0, findings: [{ index, what, where: "", made }] });
    };
    let [seen, since] = [-1, performance.now()];
    const watch = setInterval(() => {
      if (now[0] !== seen || seen === -1) [seen, since] = [now[0], performance.now()];
      else if (performance.now() - since > 5000 * LIMITS.seconds) ended("does not come to an end");
    }, 500);
    worker.on("message", (done: Done) => {
      clearInterval(watch);
      resolve(done);
    });
    worker.on("error", (error) => ended(`ends the thread: ${error.message}`));
  });
}

/** A finding's file or folder, kept to be looked at. */
function keep(reader: string, { index, made }: Finding): string {
  const folder = mkdtempSync(join(tmpdir(), `fuzz-${reader}-${index}-`));
  const files: Iterable<[string, Uint8Array]> = made instanceof Uint8Array ? [["file", made]] : made;
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(folder, basename(name)), bytes);
  return folder;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      reader: { type: "string", default: "all" },
      files: { type: "string", default: "100000" },
      seed: { type: "string", default: "1" },
      from: { type: "string", default: "0" },
    },
  });
  const readers = values.reader === "all" ? [...targets.keys()] : [values.reader];
  const unknown = readers.find((reader) => !targets.has(reader));
  if (unknown !== undefined) {
    console.error(`fuzz: no reader ${unknown}; there are ${[...targets.keys()].join(", ")}`);
    return 2;
  }
  const [seed, from, files] = [Number(values.seed), Number(values.from), Number(values.files)];
  if (![seed, from, files].every(Number.isSafeInteger) || files < 1) {
    console.error("fuzz: --files, --seed and --from need whole numbers");
    return 2;
  }
  let found = 0;
  for (const reader of readers) {
    const begin = performance.now();
    const { read, refused, findings } = await watched({ reader, seed, from, to: from + files });
    const seconds = ((performance.now() - begin) / 1000).toFixed(1);
    console.log(
      `${reader}: ${read} read, ${refused} refused, ${findings.length} findings, ${seconds} s, seed ${seed}`,
    );
    for (const finding of findings) {
      found++;
      console.log(`  ${finding.what}\n    ${finding.where}\n    ${keep(reader, finding)}`);
      console.log(`    npm run fuzz -- --reader ${reader} --seed ${seed} --from ${finding.index} --files 1`);
    }
  }
  return found === 0 ? 0 : 1;
}

if (isMainThread) process.exitCode = await main();
else parentPort!.postMessage(await work(workerData as Work));
