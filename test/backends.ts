import { examineBackends } from "../src/backends/doctor.ts";
import type { BackendName } from "../src/backends/index.ts";

export type { BackendName };

/** The backends that work on this machine; the native one is missing where there is no compiler. */
export async function backendsHere(): Promise<BackendName[]> {
  return (await examineBackends()).filter(({ ok }) => ok).map(({ name }) => name);
}
