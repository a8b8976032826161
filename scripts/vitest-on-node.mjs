// What the conformance suite uses of Vitest, on Node's own runner: Vitest
// itself does not start under an emulated processor.
//
//   node --import ./scripts/vitest-on-node.mjs src/backends/native.test.ts
import assert from "node:assert/strict";
import { registerHooks } from "node:module";
import { after, before, describe, test } from "node:test";

export { after as afterAll, before as beforeAll, describe, test };

class Expectation {
  #value;
  #message;

  constructor(value, message) {
    this.#value = value;
    this.#message = message;
  }
  toBe(other) {
    assert.ok(Object.is(this.#value, other), this.#message ?? `got ${this.#value}, expected ${other}`);
  }
  toEqual(other) {
    assert.deepEqual(this.#value, other, this.#message);
  }
  toBeLessThanOrEqual(other) {
    assert.ok(this.#value <= other, this.#message ?? `${this.#value} is more than ${other}`);
  }
  toThrow(what) {
    if (what === undefined) assert.throws(this.#value);
    else
      assert.throws(this.#value, typeof what === "string" ? ({ message }) => message.includes(what) : what);
  }
}

export const expect = (value, message) => new Expectation(value, message);

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === "vitest" ? { url: import.meta.url, shortCircuit: true } : next(specifier, context),
});
