import { Worker } from "node:worker_threads";
import type { Served } from "./watch.ts";

/** The life of the thread: it serves until it is ended. */
const LIFE = `
const { parentPort, workerData } = require("node:worker_threads");
import(workerData.module)
  .then(({ watchRun }) => watchRun(workerData.out, workerData.port))
  .then(({ url }) => parentPort.postMessage({ url }), (error) => parentPort.postMessage({ error: error.message }));
`;

/**
 * The live page of a run, served by a thread of its own: long steps of
 * training do not keep it waiting, nor it them. It does not keep the process
 * alive.
 */
export async function watchInThread(out: string, port?: number): Promise<Served> {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const worker = new Worker(LIFE, {
    eval: true,
    workerData: { module: new URL(`./watch.${extension}`, import.meta.url).href, out, port },
    execArgv: ["--disable-warning=ExperimentalWarning"], // in a checkout types are stripped for the browser
  });
  const { url, error } = await new Promise<{ url?: string; error?: string }>((done, fail) => {
    worker.once("message", done);
    worker.once("error", fail);
  });
  if (url === undefined) {
    await worker.terminate();
    throw new Error(`watch: the page cannot be served: ${error}`);
  }
  worker.unref();
  return { url, close: async () => void (await worker.terminate()) };
}
