import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Progress } from "../record/record.ts";
import { type HubOptions, hubDataset, hubFolder } from "./hub.ts";
import { openModel } from "./index.ts";
import { encodeSafetensors } from "./safetensors.ts";

/**
 * A hub on localhost that speaks as much of the real one's protocol as
 * `@huggingface/hub` uses: /api/models/NAME/revision/REV, …/tree/COMMIT,
 * /NAME/resolve/COMMIT/FILE with Range, ETag and status 401 and 404.
 */
interface Hub {
  readonly requests: string[];
  /** Called for each file's answer; true when it has answered in its own way. */
  misbehave?: (request: IncomingMessage, response: ServerResponse, file: Buffer) => boolean;
  /** Where the files are, when the hub does not hold them itself. */
  redirect?: string;
  /** Sizes that the list of files gives instead of the true ones. */
  readonly sizes: Record<string, number>;
  files: Record<string, Buffer>;
  commit: string;
}

const NAME = "someone/tiny";
const WEIGHTS = Buffer.from(
  encodeSafetensors(
    new Map([["w", { dtype: "f32", shape: [50_000], bytes: new Uint8Array(200_000).map((_, i) => i % 7) }]]),
  ),
);

let hub: Hub;
let server: Server;
let cache: string;
let settings: NonNullable<HubOptions["hub"]>;

beforeEach(async () => {
  cache = mkdtempSync(join(tmpdir(), "lowbit-"));
  hub = {
    requests: [],
    sizes: {},
    commit: "a".repeat(40),
    files: {
      "config.json": Buffer.from('{"model_type":"llama"}'),
      "model.safetensors": WEIGHTS,
      "README.md": Buffer.from("not needed"),
      "pytorch_model.bin": Buffer.from("not needed either"),
    },
  };
  server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  settings = { endpoint: `http://127.0.0.1:${port}`, cache, offline: false, token: undefined };
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(cache, { recursive: true });
});

function answer(request: IncomingMessage, response: ServerResponse): ServerResponse | undefined {
  const url = new URL(request.url ?? "", "http://hub");
  const path = decodeURIComponent(url.pathname);
  hub.requests.push(`${path} ${request.headers.range ?? ""}`.trim());
  const json = (status: number, value: object) =>
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
  if (path.includes("private") && request.headers.authorization !== "Bearer hf_right")
    return json(401, { error: "Invalid username or password." });
  if (!path.includes(NAME) && !path.includes("private/model"))
    return json(404, { error: "Repository not found" });
  const revision = /\/revision\/([^/]+)$/.exec(path)?.[1];
  if (revision !== undefined) {
    if (revision !== "main" && revision !== hub.commit) return json(404, { error: "Invalid rev id" });
    return json(200, {
      _id: "1",
      id: NAME,
      sha: hub.commit,
      private: false,
      downloads: 0,
      likes: 0,
      gated: false,
      lastModified: "2026-01-01T00:00:00Z",
    });
  }
  if (path.includes("/tree/")) {
    return json(
      200,
      Object.entries(hub.files).map(([name, bytes]) => {
        const size = hub.sizes[name] ?? bytes.length;
        const sha1 = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
        const sha256 = createHash("sha256").update(bytes).digest("hex");
        const lfs = name.endsWith(".safetensors") ? { lfs: { oid: sha256, size, pointerSize: 130 } } : {};
        return { type: "file", path: name, size, oid: sha1, ...lfs };
      }),
    );
  }
  if (hub.redirect !== undefined && request.socket.localPort === (server.address() as AddressInfo).port)
    return response.writeHead(302, { Location: `${hub.redirect}${path}` }).end();
  const name = path.split(`/resolve/${hub.commit}/`)[1];
  const file = hub.files[name];
  if (file === undefined) {
    response.setHeader("X-Error-Code", "EntryNotFound");
    return json(404, { error: "Entry not found" });
  }
  if (request.headers.range !== "bytes=0-0" && hub.misbehave?.(request, response, file)) return undefined;
  const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "");
  const [from, to] = range ? [Number(range[1]), Number(range[2])] : [0, file.length - 1];
  response.writeHead(range ? 206 : 200, {
    ETag: `"${name}"`,
    "Content-Length": to + 1 - from,
    ...(range ? { "Content-Range": `bytes ${from}-${to}/${file.length}` } : {}),
  });
  return response.end(file.subarray(from, to + 1));
}

/** Sends part of a file, then cuts the connection. */
function cutAfter(response: ServerResponse, file: Buffer, from: number, length: number): true {
  response.writeHead(from > 0 ? 206 : 200, {
    "Content-Length": file.length - from,
    ...(from > 0 ? { "Content-Range": `bytes ${from}-${file.length - 1}/${file.length}` } : {}),
  });
  response.write(file.subarray(from, from + length), () => setTimeout(() => response.destroy(), 30));
  return true;
}

const rangeStart = (request: IncomingMessage) =>
  Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);

test("downloads what a model needs and no more, with progress; then opens it from the cache without the network", async () => {
  const events: Progress[] = [];
  const model = await openModel(`hf:${NAME}`, { hub: settings, onProgress: (event) => events.push(event) });
  expect(model.name).toBe(`hf:${NAME}`);
  expect(model.source.shape("w")).toEqual([50_000]);
  await model.close();
  expect(hub.requests.some((request) => /README|pytorch/.test(request))).toBe(false);
  expect(events.at(-1)).toEqual({
    task: "download",
    done: WEIGHTS.length + 22,
    total: WEIGHTS.length + 22,
    unit: "bytes",
    note: "model.safetensors",
  });
  expect(events.every((event, i) => i === 0 || event.done >= events[i - 1].done)).toBe(true);

  hub.requests.length = 0;
  const offline = await openModel(`hf:${NAME}`, { hub: { ...settings, offline: true } });
  await offline.close();
  const pinned = await openModel(`hf:${NAME}@${hub.commit}`, { hub: settings });
  await pinned.close();
  expect(hub.requests).toEqual([]);
});

test("a connection cut in the middle is taken up where it broke off", async () => {
  let cuts = 0;
  hub.misbehave = (request, response, file) => {
    if (file !== WEIGHTS || cuts >= 2) return false;
    cuts++;
    return cutAfter(response, file, rangeStart(request), 70_000);
  };
  const folder = await hubFolder(`hf:${NAME}`, { hub: settings });
  expect(readFileSync(join(folder, "model.safetensors")).equals(WEIGHTS)).toBe(true);
  const starts = hub.requests
    .flatMap((request) => /model\.safetensors bytes=([1-9]\d*)-/.exec(request)?.[1] ?? [])
    .map(Number);
  expect(starts).toHaveLength(2);
  expect(starts[0]).toBeGreaterThan(0);
  expect(starts[1]).toBeGreaterThan(starts[0]);
});

test("a download that stops for good says where, and the next run goes on from there", async () => {
  hub.misbehave = (request, response, file) => {
    if (file !== WEIGHTS) return false;
    return rangeStart(request) === 0 ? cutAfter(response, file, 0, 90_000) : cutAfter(response, file, 0, 0);
  };
  await expect(hubFolder(`hf:${NAME}`, { hub: settings })).rejects.toThrow(
    /^hf:someone\/tiny: model\.safetensors stopped at byte \d+ of 200\d+ .*; run again to go on from there$/,
  );
  const partial = join(cache, "hub/someone--tiny", hub.commit, "model.safetensors.partial");
  const got = statSync(partial).size;
  expect(got).toBeGreaterThan(0);
  await expect(hubFolder(`hf:${NAME}`, { hub: { ...settings, offline: true } })).rejects.toThrow(
    "not in the cache, and offline mode is on",
  );

  hub.misbehave = undefined;
  hub.requests.length = 0;
  const folder = await hubFolder(`hf:${NAME}`, { hub: settings });
  expect(readFileSync(join(folder, "model.safetensors")).equals(WEIGHTS)).toBe(true);
  expect(hub.requests.some((request) => request.endsWith(`bytes=${got}-${WEIGHTS.length - 1}`))).toBe(true);
});

test("a server that ignores Range does not spoil a download that goes on", async () => {
  const folder = join(cache, "hub/someone--tiny", hub.commit);
  hub.misbehave = (_, response, file) => file === WEIGHTS && cutAfter(response, file, 0, 90_000);
  // Every answer is the whole file from its start: refused, instead of appended in the middle.
  await expect(hubFolder(`hf:${NAME}`, { hub: settings })).rejects.toThrow("stopped at byte");
  const got = readFileSync(join(folder, "model.safetensors.partial"));
  expect(got.equals(WEIGHTS.subarray(0, got.length))).toBe(true);
});

test("bytes that are not the listed ones are refused and removed", async () => {
  const wrong = Buffer.from(WEIGHTS);
  wrong[wrong.length - 1] ^= 1;
  hub.misbehave = (_, response, file) => {
    if (file !== WEIGHTS) return false;
    response.writeHead(200, { "Content-Length": wrong.length }).end(wrong);
    return true;
  };
  await expect(hubFolder(`hf:${NAME}`, { hub: settings })).rejects.toThrow(
    "model.safetensors was downloaded damaged: its sha256 hash is",
  );
  const folder = join(cache, "hub/someone--tiny", hub.commit);
  expect(readdirSync(folder)).toEqual(["config.json"]);
});

test("a small file is checked by git's hash", async () => {
  hub.misbehave = (_, response, file) => {
    if (file !== hub.files["config.json"]) return false;
    response.writeHead(200, { "Content-Length": 22 }).end('{"model_type":"lambda"');
    return true;
  };
  await expect(hubFolder(`hf:${NAME}`, { hub: settings })).rejects.toThrow(
    "config.json was downloaded damaged: its git hash is",
  );
});

test("a file of another size than the list says is refused before it is downloaded", async () => {
  hub.sizes["model.safetensors"] = WEIGHTS.length + 5;
  await expect(hubFolder(`hf:${NAME}`, { hub: settings })).rejects.toThrow(
    `model.safetensors has ${WEIGHTS.length} bytes, the hub's list says ${WEIGHTS.length + 5}`,
  );
});

test("shards: those that the index names", async () => {
  const one = Buffer.from(
    encodeSafetensors(new Map([["a", { dtype: "u8", shape: [1], bytes: Uint8Array.of(1) }]])),
  );
  hub.files = {
    "config.json": Buffer.from("{}"),
    "model.safetensors.index.json": Buffer.from('{"weight_map":{"a":"model-00001-of-00001.safetensors"}}'),
    "model-00001-of-00001.safetensors": one,
    "consolidated.safetensors": Buffer.from("not needed"),
  };
  const model = await openModel(`hf:${NAME}`, { hub: settings });
  expect(model.source.names).toEqual(["a"]);
  await model.close();
  expect(hub.requests.some((request) => request.includes("consolidated"))).toBe(false);
});

test("a model without safetensors is one line", async () => {
  hub.files = { "config.json": Buffer.from("{}"), "pytorch_model.bin": Buffer.from("x") };
  await expect(hubFolder(`hf:${NAME}`, { hub: settings })).rejects.toThrow(
    `hf:${NAME}: needs model.safetensors, the model holds pytorch_model.bin`,
  );
});

test("status 401 and 404, wrong tokens and wrong names are one line each", async () => {
  const refused = (spec: string, token?: string) => hubFolder(spec, { hub: { ...settings, token } });
  await expect(refused("hf:no/such")).rejects.toThrow(
    /^hf:no\/such: 127\.0\.0\.1:\d+ has no such model, or not revision main \(status 404\); check name and revision$/,
  );
  await expect(refused(`hf:${NAME}@v9`)).rejects.toThrow(
    "has no such model, or not revision v9 (status 404)",
  );
  await expect(refused("hf:private/model")).rejects.toThrow(
    "(status 401): no such model, or private, or gated; set HF_TOKEN to a token that may read it",
  );
  await expect(refused("hf:private/model", "hf_wrong")).rejects.toThrow(
    "HF_TOKEN may not read it; accept its terms there",
  );
  await expect(refused("hf:private/model", "right")).rejects.toThrow(
    "HF_TOKEN: a token of the Hugging Face hub begins with hf_",
  );
  await refused("hf:private/model", "hf_right");
  for (const spec of ["hf:tiny", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a/b@", "hf:a/b@..", "hf:a b/c"]) {
    await expect(refused(spec)).rejects.toThrow(`${spec}: needs hf:OWNER/NAME or hf:OWNER/NAME@REVISION`);
  }
  expect(existsSync(join(cache, "x"))).toBe(false);
});

test("the token goes to the hub alone, not to the host that it redirects downloads to", async () => {
  const met: (string | undefined)[] = [];
  const store = createServer((request, response) => {
    met.push(request.headers.authorization);
    response.setHeader("X-Cache", "Hit from cloudfront"); // makes the library remember this host's address
    answer(request, response);
  });
  await new Promise<void>((resolve) => store.listen(0, "127.0.0.1", resolve));
  const { port } = store.address() as AddressInfo;
  try {
    hub.redirect = `http://127.0.0.1:${port}`;
    const folder = await hubFolder(`hf:${NAME}`, { hub: { ...settings, token: "hf_right" } });
    expect(readFileSync(join(folder, "model.safetensors")).equals(WEIGHTS)).toBe(true);
    expect(met.length).toBeGreaterThanOrEqual(4);
    expect(met.every((authorization) => authorization === undefined)).toBe(true);
  } finally {
    store.closeAllConnections();
    await new Promise((resolve) => store.close(resolve));
  }
});

test("a hub that cannot be reached is one line, with the cached copy as the way out where there is one", async () => {
  const nowhere = { ...settings, endpoint: "http://127.0.0.1:9" };
  await expect(hubFolder(`hf:${NAME}`, { hub: nowhere })).rejects.toThrow(
    /127\.0\.0\.1:9 could not be reached .*; check the network and HF_ENDPOINT/,
  );
  await hubFolder(`hf:${NAME}`, { hub: settings });
  await expect(hubFolder(`hf:${NAME}`, { hub: nowhere })).rejects.toThrow(
    "LOWBIT_OFFLINE=1 uses the copy in the cache",
  );
});

test("a branch that moved on is downloaded anew", async () => {
  const before = await hubFolder(`hf:${NAME}`, { hub: settings });
  hub.commit = "b".repeat(40);
  const after = await hubFolder(`hf:${NAME}`, { hub: settings });
  expect(after).not.toBe(before);
  expect(existsSync(join(after, "model.safetensors"))).toBe(true);
});

test("AbortSignal ends a download; what was got stays for the next run", async () => {
  const stop = new AbortController();
  const work = hubFolder(`hf:${NAME}`, {
    hub: settings,
    signal: stop.signal,
    onProgress: ({ note, done }) => {
      if (note === "model.safetensors" && done > 22) stop.abort(new Error("interrupted"));
    },
  });
  await expect(work).rejects.toThrow("interrupted");
  expect(existsSync(join(cache, "hub/someone--tiny", hub.commit, ".complete"))).toBe(false);
});

test("the environment says where hub and cache are, and who asks", async () => {
  const before = { ...process.env };
  try {
    Object.assign(process.env, {
      HF_ENDPOINT: `${settings.endpoint}/`,
      LOWBIT_CACHE: join(cache, "own"),
      HF_TOKEN: "hf_right",
    });
    expect(await hubFolder("hf:private/model")).toBe(join(cache, "own/hub/private--model", hub.commit));
    process.env.HF_HUB_OFFLINE = "1";
    await expect(hubFolder(`hf:${NAME}`)).rejects.toThrow("offline mode is on");
    process.env.LOWBIT_CACHE = "";
    process.env.XDG_CACHE_HOME = cache;
    writeFileSync(join(cache, "x"), "");
    await expect(hubFolder(`hf:${NAME}`)).rejects.toThrow("offline mode is on");
  } finally {
    process.env = before;
  }
});

describe("data sets", () => {
  const ROWS = Buffer.from('{"text":"one"}\n');
  const SHARD = Buffer.from(new Uint8Array(150_000).map((_, i) => i % 11));

  beforeEach(() => {
    hub.files = {
      "README.md": Buffer.from("about it"),
      "data/b.parquet": SHARD,
      "data/a.jsonl": ROWS,
      "data/more/c.txt": Buffer.from("text"),
      "data2/d.txt": Buffer.from("no"),
      "script.py": Buffer.from("no"),
    };
  });
  const names = (files: { name: string }[]) => files.map(({ name }) => name);

  test("all its texts, sorted, with progress; then from the cache without the network", async () => {
    const events: Progress[] = [];
    const files = await hubDataset(`hf:${NAME}`, {
      hub: settings,
      onProgress: (event) => events.push(event),
    });
    expect(names(files)).toEqual(["data/a.jsonl", "data/b.parquet", "data/more/c.txt", "data2/d.txt"]);
    expect(readFileSync(files[1].path).equals(SHARD)).toBe(true);
    expect(hub.requests[0]).toBe(`/api/datasets/${NAME}/revision/main`);
    expect(hub.requests).toContainEqual(
      expect.stringContaining(`/datasets/${NAME}/resolve/${hub.commit}/data/a.jsonl`),
    );
    const total = SHARD.length + ROWS.length + 6;
    expect(events.at(-1)).toEqual({
      task: "download",
      done: total,
      total,
      unit: "bytes",
      note: "data2/d.txt",
    });

    hub.requests.length = 0;
    const offline = { hub: { ...settings, offline: true } };
    expect(await hubDataset(`hf:${NAME}`, offline)).toEqual(files);
    expect(await hubDataset(`hf:${NAME}@${hub.commit}/data`, { hub: settings })).toEqual(files.slice(0, 3));
    expect(hub.requests).toEqual([]);
    await expect(hubDataset("hf:someone/other", offline)).rejects.toThrow(
      "hf:someone/other: not in the cache",
    );
  });

  test("one file or folder of a revision, and no more", async () => {
    const at = async (path: string) => names(await hubDataset(`hf:${NAME}@main${path}`, { hub: settings }));
    expect(await at("/data/a.jsonl")).toEqual(["data/a.jsonl"]);
    expect(await at("/data/more/")).toEqual(["data/more/c.txt"]);
    expect(hub.requests.some((request) => /b\.parquet|d\.txt/.test(request))).toBe(false);
    const offline = { hub: { ...settings, offline: true } };
    await expect(hubDataset(`hf:${NAME}/data`, offline)).rejects.toThrow("offline mode is on");
  });

  test("a download that is cut goes on where it broke off", async () => {
    let cuts = 0;
    hub.misbehave = (request, response, file) =>
      file === SHARD && cuts++ < 1 ? cutAfter(response, file, rangeStart(request), 50_000) : false;
    const [file] = await hubDataset(`hf:${NAME}/data/b.parquet`, { hub: settings });
    expect(readFileSync(file.path).equals(SHARD)).toBe(true);
    expect(hub.requests.some((request) => /b\.parquet bytes=[1-9]/.test(request))).toBe(true);
  });

  test("a path without texts, a data set that is none and a wrong name are one line each", async () => {
    const message = (spec: string) => hubDataset(spec, { hub: settings }).catch((error) => error.message);
    expect(await message(`hf:${NAME}/script.py`)).toBe(
      `hf:${NAME}/script.py: has no .txt, .jsonl or .parquet file at script.py; check the name and the path`,
    );
    expect(await message("hf:nobody/nothing")).toContain(
      "has no such data set, or not revision main (status 404)",
    );
    expect(await message(`hf:${NAME}@gone`)).toContain("not revision gone (status 404)");
    for (const spec of ["hf:tiny", "hf:../x", `hf:${NAME}/a/../b`])
      expect(await message(spec)).toBe(
        `${spec}: needs hf:OWNER/NAME, hf:OWNER/NAME@REVISION or one of these with /path`,
      );
  });
});
