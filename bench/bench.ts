// What the benches share: the clock, the middle, and errors in one line.

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
