import type { Command } from "commander";
import { whatIs } from "../files/disk.ts";
import { watchInThread } from "../server/worker.ts";
import { InputError } from "../tensor/tensor.ts";
import { wholeNumber } from "./command.ts";
import { servedAt } from "./serving.ts";

export function watch(program: Command): void {
  program
    .command("watch")
    .description("serve a page on this machine that shows a training run: going on, interrupted or finished")
    .argument("<folder>", "what train -o was given; nothing in it is changed")
    .option("--port <n>", "port to use, or the next that is free (default: 7860)", wholeNumber(0, 65535))
    .action(async (folder: string, { port }: { readonly port?: number }) => {
      if ((await whatIs(folder)) !== "folder")
        throw new InputError(`${folder}: no such folder; give the one of a training run`);
      const page = await watchInThread(folder, port);
      process.stderr.write(`${servedAt(page.url, port ?? true)}\n`);
      // Ctrl-C is how one leaves it, and no failure.
      await new Promise<void>((resolve, reject) => {
        const keepsAlive = setInterval(() => {}, 1 << 30);
        const stop = () => {
          clearInterval(keepsAlive);
          page.close().then(resolve, reject);
        };
        process.once("SIGINT", stop);
        process.once("SIGTERM", stop);
      });
    });
}
