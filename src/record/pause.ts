import type { Job } from "./record.ts";

// Ctrl-C, progress and a server answer within this time.
const LONGEST = 20; // milliseconds

// Node's timers wait a millisecond, one twentieth of the work between two pauses; this one does not.
const turn = typeof setImmediate === "function" ? setImmediate : setTimeout;

/**
 * Called between pieces of long work: lets timers, signals and requests run
 * when the last pause is 20 ms ago, and throws the signal's reason once it is aborted.
 */
export function pauses({ signal }: Job): () => Promise<void> {
  let last = performance.now();
  return async () => {
    signal?.throwIfAborted();
    if (performance.now() - last < LONGEST) return;
    await new Promise<void>((resolve) => turn(resolve));
    last = performance.now();
    signal?.throwIfAborted();
  };
}
