/**
 * Trains as `lowbit train --resume` does and prints each moment at which a crash would be worst. Given one of them and
 * a number, it kills itself without warning when it gets there for that time.
 */
import { writeSync } from "node:fs";
import { train } from "../src/verbs/train.ts";

const [options, killAt, count] = process.argv.slice(2);
let times = 0;
await train(JSON.parse(options), {}, (point) => {
  writeSync(1, `${point}\n`); // before the kill
  if (point === killAt && ++times === Number(count)) process.kill(process.pid, "SIGKILL");
});
