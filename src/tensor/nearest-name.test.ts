import { expect, it } from "vitest";
import { nearestName } from "./nearest-name.ts";

it.each([
  ["layrs", "layers"],
  ["weight_decay", "weightDecay"],
  ["tq2", "tq2_0"],
  ["f61", "f16"],
])("%s: did you mean %s", (name, meant) => {
  expect(nearestName(name, ["f32", "f16", "layers", "heads", "weightDecay", "warmup", "tq2_0"])).toBe(meant);
});
