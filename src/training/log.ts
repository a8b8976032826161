import type { FileHandle } from "node:fs/promises";
import { writeAt, writeError } from "../files/disk.ts";
import { fs } from "../files/node.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Reached } from "./checkpoint.ts";

/** What is known of one step. */
export interface LogLine {
  /** Steps done, from 1. */
  readonly step: number;
  /** Tokens predicted so far. */
  readonly tokens: number;
  /** Mean loss of the step's batch, nats per token. */
  readonly loss: number;
  readonly rate: number;
  readonly weightDecay: number;
  /** Norm of the gradient, all parameters together, before clipping. */
  readonly gradientNorm: number;
  /** Mean loss over windows of the held-out text, nats per token, where it was measured. */
  readonly validationLoss?: number;
  /** The same at each width of a model that is trained at several. */
  readonly widthLosses?: readonly { readonly bits: number; readonly loss: number }[];
}

/** A line as it is written: `timing` differs from run to run, all else is the same bits on one backend. */
export interface TimedLine extends LogLine {
  readonly timing: { readonly seconds: number; readonly tokensPerSecond: number };
}

/** A line of a log; undefined when it is not one. */
export function timedLine(value: unknown): TimedLine | undefined {
  const line = value as Partial<TimedLine> | null;
  const { step, tokens, loss, rate, weightDecay, gradientNorm, validationLoss = 0, timing } = line ?? {};
  const numbers = [step, tokens, loss, rate, weightDecay, gradientNorm, validationLoss];
  const all = [...numbers, timing?.seconds, timing?.tokensPerSecond];
  return all.every((number) => typeof number === "number") ? (value as TimedLine) : undefined;
}

/** Something that happened between two steps. */
export type EventLine = Rollback | Chosen;

/** The run went back to a checkpoint. */
export interface Rollback {
  readonly event: "rollback";
  /** Step at which it happened, and why. */
  readonly at: number;
  readonly why: string;
  /** Step of the checkpoint from which the run goes on, and the batches that it leaves out then, from 0. */
  readonly to: number;
  readonly skipped: readonly number[];
}

/** The layers that rounding hurts most were found; they alone learn. */
export interface Chosen {
  readonly event: "chosen";
  /** The most damaged first: what rounding a layer alone adds to the loss, nats per token. */
  readonly layers: readonly { readonly name: string; readonly damage: number }[];
}

/** A line of a log that tells of an event; undefined when it does not. */
export function eventLine(value: unknown): EventLine | undefined {
  const line = value as Partial<Omit<Rollback, "event"> & Omit<Chosen, "event">> & { event?: string };
  const isNumber = (some: unknown) => typeof some === "number";
  const isRollback =
    line?.event === "rollback" &&
    isNumber(line.at) &&
    isNumber(line.to) &&
    typeof line.why === "string" &&
    Array.isArray(line.skipped) &&
    line.skipped.every(isNumber);
  const isChosen =
    line?.event === "chosen" &&
    Array.isArray(line.layers) &&
    line.layers.every((layer) => typeof layer?.name === "string" && isNumber(layer.damage));
  return isRollback || isChosen ? (value as EventLine) : undefined;
}

/** The steps of a log, without its events. */
export async function readLog(path: string): Promise<TimedLine[]> {
  return parseLog(await fs().readFile(path, "utf8")).filter((line) => "loss" in line);
}

/** What happened between its steps. */
export async function readEvents(path: string): Promise<EventLine[]> {
  return parseLog(await fs().readFile(path, "utf8")).filter((line) => "event" in line);
}

function parseLog(text: string): (TimedLine | EventLine)[] {
  return text
    .split("\n")
    .filter(Boolean)
    .map((line, i) => {
      try {
        return JSON.parse(line);
      } catch {
        throw new InputError(`log.jsonl: line ${i + 1} is not JSON; the log is damaged`);
      }
    });
}

/** log.jsonl, one line a step. */
export class Log {
  readonly #file: FileHandle;
  readonly #reached: Reached;
  #bytes: number;

  private constructor(file: FileHandle, bytes: number, reached: Reached) {
    this.#file = file;
    this.#bytes = bytes;
    this.#reached = reached;
  }

  /** Opens the log as it was when it had so many bytes; what was written later is cut off. */
  static async open(path: string, bytes: number, reached: Reached): Promise<Log> {
    const file = await fs().open(path, bytes === 0 ? "w+" : "r+");
    const { size } = await file.stat();
    if (size < bytes) {
      await file.close();
      throw new InputError(
        `log.jsonl: needs the ${bytes} bytes that the checkpoint knows of, has ${size}; it was cut, begin again in another folder`,
      );
    }
    await file.truncate(bytes);
    return new Log(file, bytes, reached);
  }

  /** Takes off what was written after so many bytes; gives what happened there. */
  async cut(bytes: number): Promise<EventLine[]> {
    const off = new Uint8Array(this.#bytes - bytes);
    await this.#file.read(off, 0, off.byteLength, bytes);
    await this.#file.truncate(bytes);
    this.#bytes = bytes;
    return parseLog(new TextDecoder().decode(off)).filter((line) => "event" in line);
  }

  async append(line: TimedLine | EventLine): Promise<void> {
    const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
    const half = bytes.byteLength >> 1;
    try {
      await writeAt(this.#file, bytes.subarray(0, half), this.#bytes);
      this.#reached("log half written");
      await writeAt(this.#file, bytes.subarray(half), this.#bytes + half);
    } catch (error) {
      throw writeError("log.jsonl", error);
    }
    this.#bytes += bytes.byteLength;
    this.#reached("log written");
  }

  /** Forces all lines to the disk; gives the log's length in bytes. */
  async sync(): Promise<number> {
    await this.#file.sync();
    this.#reached("log synced");
    return this.#bytes;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
