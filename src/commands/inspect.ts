import type { Command } from "commander";
import { type InspectResult, inspect as inspectModel } from "../verbs/inspect.ts";
import { execute, MODEL, outputOptions, type SharedOptions } from "./command.ts";
import { size } from "./progress.ts";
import { table } from "./table.ts";

export function inspect(program: Command): void {
  const command = program
    .command("inspect")
    .description("architecture, tensors, formats and sizes of a model; reads headers only")
    .argument("<model>", MODEL);
  outputOptions(command).action((model: string, options: SharedOptions) =>
    execute(options, (job) => inspectModel({ model }, job), show),
  );
}

function show(result: InspectResult): string {
  const rows = result.tensors.map((t) => [t.name, t.shape.join("×"), t.format, size(t.bytes), t.role ?? ""]);
  return [
    table(["tensor", "shape", "format", "stored", "role"], rows),
    "",
    `${result.name}: ${result.architecture}, ${result.parameters.toLocaleString("en-US")} weights, ${size(result.bytes)}, ${result.container}`,
    `bits per weight: ${result.bitsPerWeight.linear.toFixed(3)} in linear layers, ${result.bitsPerWeight.total.toFixed(3)} in all`,
  ].join("\n");
}
