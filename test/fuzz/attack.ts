import { generator } from "../../src/tensor/random.ts";
import { InputError, UnsupportedError } from "../../src/tensor/tensor.ts";
import { forgetPeak, peakMemory } from "../peak-memory.ts";
import { Damage } from "./damage.ts";
import type { Made, Target } from "./target.ts";

/** What no file may do to us. */
export const LIMITS = { seconds: 2, bytes: 64 * 2 ** 20, characters: 300 } as const;

/** How much of a file is damaged; 0: it must be read. */
const RATES = [0, 0.002, 0.005, 0.01, 0.03, 0.1, 0.3];

/** File number `index` of a seed; the same on every machine. */
export function makeFile(target: Target, seed: number, index: number): { made: Made; valid: boolean } {
  const random = generator([seed | 0, index | 0, 0x10b17, 1]);
  for (let i = 0; i < 8; i++) random(); // seeds that differ in one bit start alike
  const rate = RATES[Math.floor(random() * RATES.length)];
  return { made: target.make(new Damage(random, rate)), valid: rate === 0 };
}

export type Outcome = { readonly kind: "read" | "refused" } | Fault;

export interface Fault {
  readonly kind: "finding";
  readonly what: string;
  /** The line of ours that it comes from: files that show the same fault share it. */
  readonly where: string;
}

/** Gives a file to its reader and judges what becomes of it. */
export async function attack(target: Target, made: Made): Promise<Outcome> {
  forgetPeak();
  const rss = peakMemory();
  const begin = process.cpuUsage();
  let error: unknown;
  let failed = false;
  let said = "";
  const { warn } = console;
  console.warn = (...words) => {
    said = words.map(String).join(" ");
  };
  try {
    await target.read(made);
  } catch (reason) {
    error = reason;
    failed = true;
  } finally {
    console.warn = warn;
  }
  // Of the processor, so that a busy machine finds nothing; what waits without end is the watch's business.
  const { user, system } = process.cpuUsage(begin);
  const seconds = (user + system) / 1e6;
  const taken = peakMemory() - rss;
  if (seconds > LIMITS.seconds) return finding(`took ${seconds.toFixed(1)} s`, error);
  if (taken > LIMITS.bytes) return finding(`took ${Math.round(taken / 2 ** 20)} MB`, error);
  if (said !== "") return finding(`prints a line of its own: ${said}`, error);
  if (!failed) return { kind: "read" };
  if (!(error instanceof InputError || error instanceof UnsupportedError)) {
    const { name, message } = error instanceof Error ? error : { name: typeof error, message: String(error) };
    return finding(`${name}: ${message}`, error);
  }
  const { message } = error;
  if (/[\n\r\u2028\u2029]/.test(message)) return finding("more than one line", error);
  if (message.length > LIMITS.characters) return finding(`a line of ${message.length} characters`, error);
  if (!target.begins.test(message)) return finding("does not name the file", error);
  return { kind: "refused" };
}

function finding(what: string, error: unknown): Fault {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  const message = error instanceof Error ? error.message : "";
  const frame = stack
    .split("\n")
    .find((line) => /\/(src|node_modules)\//.test(line))
    ?.trim();
  return {
    kind: "finding",
    what: `${what}${what.includes(message) ? "" : `: ${message}`}`.replaceAll("\n", "\\n").slice(0, 400),
    where: frame ?? "?",
  };
}

/** The smallest file that still shows a fault of the same place, found by taking pieces away. */
export async function smaller(target: Target, made: Made, where: string): Promise<Made> {
  if (!(made instanceof Uint8Array)) return made;
  let best = made;
  const until = performance.now() + 1000;
  const still = async (bytes: Uint8Array) => {
    const outcome = await attack(target, bytes);
    return outcome.kind === "finding" && outcome.where === where;
  };
  for (let piece = Math.ceil(best.length / 2); piece >= 1; piece = Math.floor(piece / 2)) {
    for (let at = 0; at < best.length && performance.now() < until; ) {
      const shorter = new Uint8Array([...best.subarray(0, at), ...best.subarray(at + piece)]);
      if (await still(shorter)) best = shorter;
      else at += piece;
    }
  }
  return best;
}
