// What the benches share: the clock, the middle, where peers are kept, and errors in one line.
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where peers are installed; nothing of them belongs to the project. */
export const PEERS_FOLDER = join(tmpdir(), "lowbit-bench-peers");

/** A backend that does not work here, say, is one line and status 1. */
export function sayErrorsInOneLine(): void {
  process.once("uncaughtException", ({ message }) => {
    process.stderr.write(`bench: ${message}\n`);
    process.exit(1);
  });
}

export function secondsOf(run: () => void): number {
  const start = performance.now();
  run();
  return (performance.now() - start) / 1000;
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
