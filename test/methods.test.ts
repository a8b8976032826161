import { describe } from "vitest";
import { openBackend } from "../src/backends/index.ts";
import { methodSuite } from "../src/methods/method.suite.ts";
import { backendsHere } from "./backends.ts";

// The reference runs the same suite in src/methods/methods.test.ts.
for (const name of await backendsHere()) {
  if (name !== "reference") describe(`on ${name}`, () => methodSuite(() => openBackend(name)));
}
