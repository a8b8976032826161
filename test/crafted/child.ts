// Runs command lines one after another in this process, as bin/lowbit.mjs does one, and says of each what a person and
// the system would see. Reads a JSON list of argument lists on stdin, writes a JSON list of results on stdout.
import { readFileSync, writeSync } from "node:fs";
import { main } from "../../src/commands/cli.ts";
import { forgetPeak, peakMemory } from "../peak-memory.ts";

export interface Seen {
  readonly status: number;
  readonly stderr: string;
  readonly stdout: string;
  /** Of the processor: a test machine may be busy with other things. */
  readonly seconds: number;
  /** The most memory that the process had while it ran, bytes. */
  readonly peak: number;
}

const lines: readonly (readonly string[])[] = JSON.parse(readFileSync(0, "utf8"));
const seen: Seen[] = [];
process.stdout.setMaxListeners(0); // each command has one of its own
for (const args of lines) {
  const said = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    process[name].write = ((text: string | Uint8Array) => {
      said[name] += typeof text === "string" ? text : new TextDecoder().decode(text);
      return true;
    }) as typeof process.stdout.write;
  }
  gc?.(); // each command has a process of its own where people run it
  forgetPeak();
  const begin = process.cpuUsage();
  const status = await main(args);
  const { user, system } = process.cpuUsage(begin);
  seen.push({ status, ...said, seconds: (user + system) / 1e6, peak: peakMemory() });
}
writeSync(1, JSON.stringify(seen));
