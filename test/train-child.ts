/**
 * Trains as `lowbit train --resume` does, and kills itself without warning at the n-th moment at which a crash would
 * be worst. Arguments: a JSON file of train's options, and n (0: never).
 */
import { readFileSync } from "node:fs";
import { train } from "../src/verbs/train.ts";

const [options, moment] = process.argv.slice(2);
let reached = 0;
await train(JSON.parse(readFileSync(options, "utf8")), {}, (point) => {
  if (++reached !== Number(moment)) return;
  process.stdout.write(point);
  process.kill(process.pid, "SIGKILL");
});
