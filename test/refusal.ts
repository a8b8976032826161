import { expect } from "vitest";
import { InputError } from "../src/tensor/tensor.ts";

/** What a refused piece of work says: one line of an InputError. */
export async function refusal(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => new Error("was not refused"),
    (reason: Error) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  expect(error.message).not.toContain("\n");
  return error.message;
}
