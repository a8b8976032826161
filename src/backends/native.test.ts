import { describe, test } from "vitest";
import { UnsupportedError } from "../tensor/tensor.ts";
import { backendSuite } from "./backend.suite.ts";
import type { BackendOptions } from "./backend.ts";
import { native, nativeBodies } from "./native.ts";

const BODIES = ["avx512", "avx2", "neon", "portable"] as const satisfies readonly BackendOptions["body"][];

const present = bodiesHere();
for (const body of BODIES) {
  if (present.includes(body)) {
    backendSuite(`native, ${body}`, async (options) => native({ ...options, body }));
  } else {
    describe.skip(`backend native, ${body}: not on this machine (${present.join(", ") || "no addon"})`, () => {
      test("is skipped", () => {});
    });
  }
}

function bodiesHere(): readonly string[] {
  try {
    return nativeBodies();
  } catch (error) {
    if (error instanceof UnsupportedError) return [];
    throw error;
  }
}
