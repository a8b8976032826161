import type { Command } from "commander";
import { examineBackends } from "../backends/doctor.ts";
import { startRecord } from "../record/make.ts";
import { execute, outputOptions, type SharedOptions } from "./command.ts";
import { table } from "./table.ts";

export function doctor(program: Command): void {
  const command = program
    .command("doctor")
    .description("which backends work here, and what to do about those that do not");
  outputOptions(command).action((options: SharedOptions) =>
    execute(
      options,
      async () => {
        const finish = startRecord("doctor", {});
        return finish(undefined, {}, { backends: await examineBackends({ kernels: true }) });
      },
      ({ backends }) =>
        table(
          ["backend", "works", "runs", "instead of dot products", "what to know"],
          backends.map(({ name, ok, description, kernels, why }) => [
            name,
            ok ? "yes" : "no",
            description,
            Object.entries(kernels ?? {})
              .map(([format, kernel]) => `${format}: ${kernel}`)
              .join(", "),
            why,
          ]),
        ),
    ),
  );
}
