import type { Command } from "commander";
import { type BenchOptions, type KernelSpeeds, type ModelSpeed, bench as measure } from "../verbs/bench.ts";
import { FAST } from "../verbs/load.ts";
import { execute, MODEL, runOptions, type SharedOptions, sharedOptions, wholeNumber } from "./command.ts";
import { size } from "./progress.ts";
import { table } from "./table.ts";

export function bench(program: Command): void {
  const command = program
    .command("bench")
    .description("speed of a model, or of kernels, beside the machine's own limits")
    .argument("[model]", MODEL)
    .option("--prompt <n>", "tokens of the prompt (default: 512)", wholeNumber(1))
    .option("--tokens <n>", "tokens to decode (default: 64)", wholeNumber(1));
  runOptions(command, FAST);
  sharedOptions(command).action((model: string | undefined, options: SharedOptions & BenchOptions) => {
    const { json, quiet, ...settings } = options;
    return execute(
      options,
      (job) => measure({ ...settings, ...(model === undefined ? {} : { model }) }, job),
      show,
    );
  });
}

function show(speeds: ModelSpeed | KernelSpeeds): string {
  const plain = `memory is read at ${size(speeds.plainReadBytesPerSecond)}/s by the same threads`;
  if ("kernels" in speeds) {
    const rows = speeds.kernels.map((k) => [
      k.operation,
      k.format,
      `${k.rows}×${k.in} · ${k.in}×${k.out}`,
      k.gflops.toFixed(1),
    ]);
    return `${table(["operation", "format", "shape", "GFLOP/s"], rows)}\n\n${plain}`;
  }
  return [
    `prefill  ${speeds.prefillTokensPerSecond.toFixed(0)} tokens/s (${speeds.prefillTokens} tokens)`,
    `decode   ${speeds.decodeTokensPerSecond.toFixed(0)} tokens/s (${speeds.decodeTokens} tokens, ${size(speeds.bytesPerToken)} read for each)`,
    `share of memory bandwidth: ${(100 * speeds.memoryBandwidthShare).toFixed(0)} %; ${plain}`,
  ].join("\n");
}
