import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { writeFileAtomic } from "../files/index.ts";
import { bitWidths } from "../study/bit-widths.ts";
import { reportHtml } from "../study/report.ts";
import { candidateHeader, candidateRow } from "../study/rows.ts";
import { execute, runCommand, type SharedOptions, sharedOptions } from "./command.ts";
import { table } from "./table.ts";

const root = join(import.meta.dirname, "../..");
const REPORT = "lowbit-report.html";

/** `npm start`: how few bits can the bundled model have? One table, one page, one sentence of advice. */
const program = new Command("npm start --").description("compare bit widths of the bundled model");
sharedOptions(program).action((options: SharedOptions) => {
  const { json, quiet, ...choice } = options;
  return execute(
    options,
    async (job) => {
      const record = await bitWidths(
        {
          ...choice,
          float: "bundled:float",
          trained: [
            { name: "trilm tq2_0", family: "ternary", model: "bundled:trilm" },
            { name: "bilm binary", family: "binary", model: "bundled:bilm" },
          ],
          calibration: await example("sampled.txt"),
          text: await example("stories.txt"),
        },
        job,
      );
      await writeFileAtomic(REPORT, new TextEncoder().encode(await reportHtml(record)));
      return record;
    },
    (record) =>
      [
        table(candidateHeader, record.candidates.map(candidateRow)),
        "",
        record.protocol,
        `Written: ${REPORT} (${record.seconds.toFixed(0)} s)`,
        record.advice.sentence,
      ].join("\n"),
  );
});
process.exitCode = await runCommand(program, process.argv.slice(2));

async function example(name: string) {
  return { name, bytes: new Uint8Array(await readFile(join(root, "examples", name))) };
}
