import type { Progress } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import {
  makeFolder,
  openDisk,
  openGrowing,
  readSmall,
  remove,
  rename,
  whatIs,
  writeFileAtomic,
} from "./disk.ts";
import { isObject, parseJson } from "./json.ts";

/**
 * Models and data sets of the Hugging Face hub, through `@huggingface/hub`, in a cache of
 * our own:
 *
 *   CACHE/hub/OWNER--NAME/refs/REVISION       the commit that a revision meant when it was last asked for
 *   CACHE/hub/OWNER--NAME/COMMIT/…            the model's files; NAME.partial while one is on its way
 *   CACHE/hub/OWNER--NAME/COMMIT/.complete    all of them are there and checked
 *
 * A partial file belongs to one commit, so that a download cut off at any
 * byte continues there, in this run or in a later one.
 */
export interface HubOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Where the hub and the cache are; what is not given comes from the environment. */
  readonly hub?: Partial<HubSettings>;
}

export interface HubSettings {
  /** HF_ENDPOINT, else https://huggingface.co */
  readonly endpoint: string;
  /** HF_TOKEN */
  readonly token?: string;
  /** LOWBIT_CACHE, else lowbit in XDG_CACHE_HOME, else ~/.cache/lowbit */
  readonly cache: string;
  /** LOWBIT_OFFLINE=1 or HF_HUB_OFFLINE=1: only what the cache holds. */
  readonly offline: boolean;
}

/** Files that a model is made of, beside its weights. */
const SMALL_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "tokenizer.bin",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
  "record.json",
];
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Attempts in a row that bring nothing, before a download is given up; the waits between them double from here, in ms. */
const FRUITLESS_ATTEMPTS = 4;
const FIRST_WAIT = 250;

interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 of a large file, or git's own hash of a small one. */
  readonly check?: { readonly algorithm: "sha256" | "git"; readonly hash: string };
}

/**
 * The folder in the cache that holds the model of `hf:OWNER/NAME[@REVISION]`,
 * after downloading what is missing. Throws an InputError for a name, a
 * revision or a token that the hub does not accept, and for a model that
 * offline mode does not find.
 */
export async function hubFolder(spec: string, options: HubOptions = {}): Promise<string> {
  const { name, revision } = parseSpec(spec);
  const settings = settingsOf(options);
  const base = `${settings.cache}/hub/${name.replace("/", "--")}`;
  const ref = `${base}/refs/${encodeURIComponent(revision)}`;

  const cached = /^[0-9a-f]{40}$/.test(revision) ? revision : await readRef(ref);
  const isCached = cached !== undefined && (await whatIs(`${base}/${cached}/.complete`)) === "file";
  if (settings.offline) {
    if (isCached) return `${base}/${cached}`;
    throw new InputError(
      `${spec}: not in the cache, and offline mode is on; unset LOWBIT_OFFLINE and HF_HUB_OFFLINE to download it`,
    );
  }
  if (isCached && cached === revision) return `${base}/${cached}`;

  const hub = await connect(spec, { type: "model", name }, settings, options.signal, isCached);
  const commit = await hub.resolve(revision);
  const folder = `${base}/${commit}`;
  if ((await whatIs(`${folder}/.complete`)) !== "file") {
    await download(spec, folder, commit, hub, options);
    await writeFileAtomic(`${folder}/.complete`, new Uint8Array(0));
  }
  await writeRef(ref, commit);
  return folder;
}

/** A file of a data set on this machine, and its path in the data set. */
export interface DatasetFile {
  readonly name: string;
  readonly path: string;
}

/** What texts are kept in; others, such as a README.md, are no part of a data set. */
const TEXT_FILES = /\.(txt|jsonl|ndjson|parquet)$/i;

/**
 * The text files of `hf:OWNER/NAME[@REVISION][/path]`, all of them or those at
 * or below a path, sorted by name (by code units), after downloading what is
 * missing. A revision with a slash is written with %2F. In the cache:
 *
 *   CACHE/hub/datasets/OWNER--NAME/refs/REVISION    the commit, as for models
 *   CACHE/hub/datasets/OWNER--NAME/COMMIT.json      its list of files
 *   CACHE/hub/datasets/OWNER--NAME/COMMIT/…         those that were asked for
 */
export async function hubDataset(spec: string, options: HubOptions = {}): Promise<DatasetFile[]> {
  const { name, revision, path } = parseDataset(spec);
  const settings = settingsOf(options);
  const base = `${settings.cache}/hub/datasets/${name.replace("/", "--")}`;
  const ref = `${base}/refs/${encodeURIComponent(revision)}`;
  const cached = /^[0-9a-f]{40}$/.test(revision) ? revision : await readRef(ref);
  const listOf = (commit: string) => `${base}/${commit}.json`;
  const isCached = cached !== undefined && (await whatIs(listOf(cached))) === "file";

  let hub: Hub | undefined;
  const online = async () => {
    if (settings.offline) {
      throw new InputError(
        `${spec}: not in the cache, and offline mode is on; unset LOWBIT_OFFLINE and HF_HUB_OFFLINE to download it`,
      );
    }
    hub ??= await connect(spec, { type: "dataset", name }, settings, options.signal, isCached);
    return hub;
  };
  const isKnown = isCached && (settings.offline || cached === revision);
  const commit = isKnown ? cached : await (await online()).resolve(revision);
  let files = await readListing(listOf(commit));
  if (files === undefined) {
    files = await (await online()).files(commit);
    await writeWithFolder(listOf(commit), JSON.stringify({ files }));
  }
  if (!isKnown) await writeRef(ref, commit);
  const wanted = files
    .filter(
      ({ path: file }) => TEXT_FILES.test(file) && isBelow(file, path) && !file.split("/").includes(".."),
    )
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  if (wanted.length === 0) {
    const where = path === "" ? "" : ` at ${path}`;
    throw new InputError(
      `${spec}: has no .txt, .jsonl or .parquet file${where}; check the name and the path`,
    );
  }
  const total = wanted.reduce((bytes, file) => bytes + file.size, 0);
  let done = 0;
  for (const file of wanted) {
    if ((await whatIs(`${base}/${commit}/${file.path}`)) !== "file") {
      const report = (bytes: number) =>
        options.onProgress?.({ task: "download", done: done + bytes, total, unit: "bytes", note: file.path });
      await downloadOne(spec, `${base}/${commit}`, commit, await online(), file, options.signal, report);
    }
    done += file.size;
  }
  return wanted.map((file) => ({ name: file.path, path: `${base}/${commit}/${file.path}` }));
}

/** The list of files that was kept, unless there is none or it is damaged. */
async function readListing(path: string): Promise<RemoteFile[] | undefined> {
  if ((await whatIs(path)) !== "file") return undefined;
  try {
    const { files } = JSON.parse(new TextDecoder().decode(await readSmall(path, 1 << 28)));
    return Array.isArray(files) ? files : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function isBelow(file: string, path: string): boolean {
  return path === "" || file === path || file.startsWith(`${path}/`);
}

function parseDataset(spec: string): { name: string; revision: string; path: string } {
  const [, name, revision = "main", path = ""] =
    /^hf:([\w.-]+\/[\w.-]+)(?:@([^/\s]+))?(?:\/(.*?))?\/*$/.exec(spec) ?? [];
  const isDots = (part: string) => /^\.+$/.test(part);
  if (name === undefined || name.split("/").some(isDots) || isDots(revision) || path.split("/").some(isDots))
    throw new InputError(`${spec}: needs hf:OWNER/NAME, hf:OWNER/NAME@REVISION or one of these with /path`);
  return { name, revision: revision.replaceAll(/%2f/gi, "/"), path };
}

async function writeRef(ref: string, commit: string): Promise<void> {
  await writeWithFolder(ref, `${commit}\n`);
}

async function writeWithFolder(path: string, text: string): Promise<void> {
  await makeFolder(path.slice(0, path.lastIndexOf("/")));
  await writeFileAtomic(path, new TextEncoder().encode(text));
}

function parseSpec(spec: string): { name: string; revision: string } {
  const match = /^hf:([\w.-]+\/[\w.-]+)(?:@(.+))?$/.exec(spec);
  const [, name, revision = "main"] = match ?? [];
  if (
    name === undefined ||
    name.split("/").some((part) => /^\.+$/.test(part)) ||
    /[\s\0]|^\.+$/.test(revision)
  ) {
    throw new InputError(`${spec}: needs hf:OWNER/NAME or hf:OWNER/NAME@REVISION`);
  }
  return { name, revision };
}

function settingsOf({ hub }: HubOptions): HubSettings {
  return { ...settingsFrom(process.env), ...hub };
}

/** What the environment says; see HubSettings. */
function settingsFrom(env: Readonly<Record<string, string | undefined>>): HubSettings {
  const isOn = (value: string | undefined) => value !== undefined && /^(1|true|yes|on)$/i.test(value);
  const home = env.HOME ?? env.USERPROFILE ?? ".";
  return {
    endpoint: (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, ""),
    token: env.HF_TOKEN?.trim() || undefined,
    cache: env.LOWBIT_CACHE || `${env.XDG_CACHE_HOME || `${home}/.cache`}/lowbit`,
    offline: isOn(env.LOWBIT_OFFLINE) || isOn(env.HF_HUB_OFFLINE),
  };
}

async function readRef(path: string): Promise<string | undefined> {
  if ((await whatIs(path)) !== "file") return undefined;
  const commit = new TextDecoder().decode(await readSmall(path, 100)).trim();
  return /^[0-9a-f]{40}$/.test(commit) ? commit : undefined;
}

/** The hub, as far as one model needs it; its failures become one line each. */
interface Hub {
  /** Commit of a branch, tag or commit. */
  resolve(revision: string): Promise<string>;
  files(commit: string): Promise<RemoteFile[]>;
  /** Bytes of a file from a position on. */
  bytes(commit: string, file: RemoteFile, from: number): Promise<ReadableStream<Uint8Array>>;
}

/**
 * Loaded only when the hub is spoken to, and by a name that bundlers do not
 * follow: its Node half cannot be bundled for a browser, where this file has
 * no disk to work with anyway.
 */
async function hubLibrary(): Promise<typeof import("@huggingface/hub")> {
  const name = "@huggingface/hub";
  return import(/* webpackIgnore: true */ /* @vite-ignore */ name);
}

async function connect(
  spec: string,
  repo: { readonly type: "model" | "dataset"; readonly name: string },
  { endpoint, token }: HubSettings,
  signal: AbortSignal | undefined,
  isCached: boolean,
): Promise<Hub> {
  const { datasetInfo, downloadFile, listFiles, modelInfo } = await hubLibrary();
  if (token !== undefined && !token.startsWith("hf_")) {
    throw new InputError("HF_TOKEN: a token of the Hugging Face hub begins with hf_; correct it or unset it");
  }
  const common = {
    hubUrl: endpoint,
    accessToken: token,
    fetch: async (url: string | URL | Request, init?: RequestInit) => {
      const headers = new Headers(init?.headers);
      // The library goes straight to a host that it was once redirected to; the token is for the hub alone.
      const { origin } = new URL(url instanceof Request ? url.url : url);
      const isToken = headers.get("Authorization") === `Bearer ${token}`;
      if (isToken && origin !== new URL(endpoint).origin) headers.delete("Authorization");
      const response = await fetch(url, { ...init, headers, signal });
      const range = headers.get("Range");
      // A server that ignores Range sends the file from its start again.
      if (range !== null && response.status === 200 && !range.startsWith("bytes=0-")) {
        await response.body?.cancel();
        throw new Error("the server does not continue downloads (no answer to Range)");
      }
      return response;
    },
  };
  const failing = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      const asked = { spec, kind: repo.type === "model" ? "model" : "data set", what };
      throw signal?.aborted ? signal.reason : hubError(asked, endpoint, token, error, isCached);
    }
  };
  return {
    resolve: (revision) =>
      failing(`revision ${revision}`, async () => {
        const asked = { ...common, name: repo.name, revision, additionalFields: ["sha" as const] };
        const { sha } = repo.type === "model" ? await modelInfo(asked) : await datasetInfo(asked);
        if (!/^[0-9a-f]{40}$/.test(sha)) throw new Error("the hub gave no commit");
        return sha;
      }),
    files: (commit) =>
      failing("its list of files", async () => {
        const files: RemoteFile[] = [];
        const all = listFiles({ ...common, repo, revision: commit, recursive: repo.type === "dataset" });
        for await (const { type, path, size, oid, lfs } of all) {
          if (type !== "file") continue;
          const check = lfs
            ? { algorithm: "sha256" as const, hash: lfs.oid }
            : { algorithm: "git" as const, hash: oid ?? "" };
          files.push({ path, size: lfs?.size ?? size, check: check.hash === "" ? undefined : check });
        }
        return files;
      }),
    bytes: (commit, file, from) =>
      failing(file.path, async () => {
        const blob = await downloadFile({ ...common, repo, revision: commit, path: file.path });
        if (blob === null) throw new InputError(`${spec}: ${file.path} is listed by the hub, but not there`);
        if (blob.size !== file.size) {
          throw new InputError(
            `${spec}: ${file.path} has ${blob.size} bytes, the hub's list says ${file.size}`,
          );
        }
        return blob.slice(from, file.size).stream();
      }),
  };
}

async function download(
  spec: string,
  folder: string,
  commit: string,
  hub: Hub,
  options: HubOptions,
): Promise<void> {
  const remote = new Map((await hub.files(commit)).map((file) => [file.path, file]));
  const wanted = SMALL_FILES.flatMap((path) => remote.get(path) ?? []);
  const { signal, onProgress } = options;
  const fetchOne = (file: RemoteFile, onBytes: (done: number) => void) =>
    downloadOne(spec, folder, commit, hub, file, signal, onBytes);
  const whole = remote.get(WEIGHTS);
  const index = remote.get(INDEX);
  if (whole) wanted.push(whole);
  else if (index) {
    await fetchOne(index, () => {}); // small, and only with it the total is known
    const { weight_map: map } = parseJson(await readSmall(`${folder}/${INDEX}`, 1 << 27), INDEX);
    for (const path of new Set(isObject(map) ? Object.values(map) : [])) {
      const shard =
        typeof path === "string" && /^[^\\/]+\.safetensors$/.test(path) ? remote.get(path) : undefined;
      if (shard === undefined)
        throw new InputError(
          `${spec}: its index names ${JSON.stringify(path)}, which the model does not hold`,
        );
      wanted.push(shard);
    }
  } else {
    const others = [...remote.keys()].filter((path) =>
      /\.(bin|gguf|pt|pth|onnx|h5|msgpack|safetensors)$/.test(path),
    );
    throw new InputError(
      `${spec}: needs ${WEIGHTS}, the model holds ${others.length > 0 ? others.slice(0, 4).join(", ") : "no weights"}`,
    );
  }
  const total = wanted.reduce((bytes, file) => bytes + file.size, 0);
  let done = 0;
  for (const file of wanted) {
    const report = (bytes: number) =>
      onProgress?.({ task: "download", done: done + bytes, total, unit: "bytes", note: file.path });
    await fetchOne(file, report);
    done += file.size;
  }
}

/** Downloads one file, going on where it was cut off, and checks it before it gets its name. */
async function downloadOne(
  spec: string,
  folder: string,
  commit: string,
  hub: Hub,
  file: RemoteFile,
  signal: AbortSignal | undefined,
  onBytes: (done: number) => void,
): Promise<void> {
  const path = `${folder}/${file.path}`;
  if ((await whatIs(path)) === "file") return onBytes(file.size);
  const partial = `${path}.partial`;
  for (let fruitless = 0; ; ) {
    const growing = await openGrowing(partial);
    let done = growing.size;
    try {
      onBytes(done);
      if (done < file.size) {
        for await (const bytes of await hub.bytes(commit, file, done)) {
          signal?.throwIfAborted();
          await growing.append(bytes);
          done += bytes.byteLength;
          onBytes(Math.min(done, file.size));
        }
      }
      if (done >= file.size) break;
      throw new Error("the connection ended early");
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof InputError) throw error;
      fruitless = done > growing.size ? 1 : fruitless + 1;
      if (fruitless >= FRUITLESS_ATTEMPTS) {
        const why = error instanceof Error ? error.message : String(error);
        throw new Error(
          `${spec}: ${file.path} stopped at byte ${done} of ${file.size} (${why}); run again to go on from there`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, FIRST_WAIT * 2 ** (fruitless - 1)));
    } finally {
      await growing.close();
    }
  }
  const wrong = await mismatch(partial, file);
  if (wrong !== undefined) {
    await remove(partial);
    throw new InputError(`${spec}: ${file.path} was downloaded damaged: ${wrong}; removed; run again`);
  }
  await rename(partial, path);
}

/** What is wrong with a downloaded file, if anything. */
async function mismatch(path: string, file: RemoteFile): Promise<string | undefined> {
  const source = await openDisk(path);
  try {
    if (source.byteLength !== file.size)
      return `${source.byteLength} bytes, the hub's list says ${file.size}`;
    if (file.check === undefined) return undefined;
    const { algorithm, hash } = file.check;
    const digest = process
      .getBuiltinModule("node:crypto")
      .createHash(algorithm === "git" ? "sha1" : "sha256");
    if (algorithm === "git") digest.update(`blob ${file.size}\0`);
    for (let at = 0; at < file.size; at += 1 << 22)
      digest.update(await source.slice(at, Math.min(at + (1 << 22), file.size)));
    const met = digest.digest("hex");
    return met === hash ? undefined : `its ${algorithm} hash is ${met}, the hub's list says ${hash}`;
  } finally {
    await source.close();
  }
}

function hubError(
  { spec, kind, what }: { readonly spec: string; readonly kind: string; readonly what: string },
  endpoint: string,
  token: string | undefined,
  error: unknown,
  isCached: boolean,
): Error {
  if (error instanceof InputError) return error;
  const status = error instanceof Error && "statusCode" in error ? error.statusCode : undefined;
  const host = new URL(endpoint).host;
  switch (status) {
    case 401:
    case 403: {
      const cure =
        token === undefined
          ? "set HF_TOKEN to a token that may read it"
          : "HF_TOKEN may not read it; accept its terms there";
      return new InputError(
        `${spec}: ${host} does not give it out (status ${status}): no such ${kind}, or private, or gated; ${cure}`,
      );
    }
    case 404:
      return new InputError(
        `${spec}: ${host} has no such ${kind}, or not ${what} (status 404); check name and revision`,
      );
    case undefined: {
      const cause =
        error instanceof Error && error.cause instanceof Error
          ? error.cause.message
          : String((error as Error)?.message ?? error);
      const cure = isCached
        ? "LOWBIT_OFFLINE=1 uses the copy in the cache"
        : "check the network and HF_ENDPOINT";
      return new Error(`${spec}: ${host} could not be reached for ${what} (${cause}); ${cure}`);
    }
    default:
      return new Error(`${spec}: ${host} answered status ${status} for ${what}; try again later`);
  }
}
