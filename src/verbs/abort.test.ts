import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import type { Job, Progress } from "../record/record.ts";
import { bench } from "./bench.ts";
import { chat } from "./chat.ts";
import { compress } from "./compress.ts";
import { evaluate } from "./evaluate.ts";
import { generate, stream } from "./generate.ts";
import { inspect } from "./inspect.ts";
import { train } from "./train.ts";

let folder: string;
let text: string;
const at = (name: string) => join(folder, name);
const backend = "reference" as const;
const reason = new Error("enough");

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-abort-"));
  text = writeTinyText(folder);
  await train({ recipe: tinyRecipe(text, "float"), out: at("model"), backend, set: ["steps=1"] });
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Every verb, on a model. */
const verbs: { readonly [name: string]: (model: string, job: Job) => Promise<unknown> } = {
  inspect: (model, job) => inspect({ model }, job),
  evaluate: (model, job) => evaluate({ models: [model], text: join(text, "a.txt"), backend }, job),
  compress: (model, job) =>
    compress(
      { model, output: at("out"), method: "gptq", format: "int4", calibration: join(text, "a.txt"), backend },
      job,
    ),
  generate: (model, job) => generate({ model, prompt: "The", tokens: 12, backend }, job),
  stream: async (model, job) => {
    for await (const _ of stream({ model, prompt: "The", tokens: 12, backend }, job));
  },
  chat: async (model, job) => (await chat({ model, backend }, job)).close(),
  bench: (model, job) => bench({ model, backend }, job),
  "bench of kernels": (_, job) => bench({ backend }, job),
  train: (_, job) => train({ recipe: tinyRecipe(text, "float"), out: at("run"), backend }, job),
};
const named = Object.entries(verbs);

test.each(named)("%s, aborted before it starts: the signal's reason, and nothing is left", async (_, run) => {
  await expect(run(at("model"), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  expect(readdirSync(folder).sort()).toEqual(["model", "text"]);
});

test.each(named.filter(([name]) => name !== "inspect"))(
  "%s, aborted while it works: the signal's reason, and nothing half done is left",
  async (name, run) => {
    const controller = new AbortController();
    let events = 0;
    const onProgress = () => {
      if (++events === 2) controller.abort(reason);
    };
    await expect(run(at("model"), { signal: controller.signal, onProgress })).rejects.toBe(reason);
    // A training that was begun stays, and so do finished matrices, to be continued.
    const stays: { readonly [name: string]: string } = { train: "run", compress: "out.partial" };
    const left = stays[name] === undefined ? [] : [stays[name]];
    expect(readdirSync(folder).sort()).toEqual(["model", "text", ...left].sort());
    for (const path of left) rmSync(at(path), { recursive: true });
  },
);

describe("a model of the hub that is being downloaded", () => {
  let server: Server;

  beforeEach(async () => {
    const commit = "a".repeat(40);
    // Says what it has, begins to send the weights, and then nothing more comes.
    server = createServer((request, response) => {
      const path = request.url ?? "";
      const json = (value: object) =>
        response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(value));
      if (path.includes("/revision/"))
        return json({ _id: "1", id: "some/model", sha: commit, private: false, downloads: 0, likes: 0 });
      if (path.includes("/tree/"))
        return json([{ type: "file", path: "model.safetensors", size: 1e6, oid: "b".repeat(40) }]);
      response.setHeader("ETag", '"w"');
      if (request.headers.range === "bytes=0-0") {
        response.writeHead(206, { "Content-Length": 1, "Content-Range": "bytes 0-0/1000000" });
        return response.end(Buffer.alloc(1));
      }
      response.writeHead(200, { "Content-Length": 1e6 });
      return response.write(Buffer.alloc(1000));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    vi.stubEnv("HF_ENDPOINT", `http://127.0.0.1:${port}`);
    vi.stubEnv("LOWBIT_CACHE", at("cache"));
    vi.stubEnv("LOWBIT_OFFLINE", "");
    vi.stubEnv("HF_HUB_OFFLINE", "");
    vi.stubEnv("HF_TOKEN", "");
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(at("cache"), { recursive: true, force: true });
  });

  const loading = named.filter(([name]) => name !== "train" && name !== "bench of kernels");
  test.each(loading)("%s says how far it is, and an aborted signal stops it", async (_, run) => {
    const controller = new AbortController();
    const seen = new Set<string>();
    const onProgress = ({ task, done }: Progress) => {
      seen.add(task);
      if (done > 0) controller.abort(reason);
    };
    await expect(run("hf:some/model", { signal: controller.signal, onProgress })).rejects.toBe(reason);
    expect([...seen]).toEqual(["download"]);
  });
});
