import { readFile, stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { basename, extname, join, resolve } from "node:path";
import { parse } from "yaml";
import { type EventLine, eventLine, type TimedLine, timedLine } from "../training/log.ts";
import { layout } from "../training/report.ts";
import {
  isHeader,
  parseWeightsLine,
  type WeightsHeader,
  type WeightsSample,
} from "../training/weights-log.ts";
import { pageHtml, pageStyle } from "./page.ts";
import { Tail } from "./tail.ts";

/** A page that is being served. */
export interface Served {
  readonly url: string;
  close(): Promise<void>;
}

/** What the page asks for again and again: what it does not know yet. */
export interface News {
  readonly name: string;
  /** Other than the page's: it forgets what it has. */
  readonly revision: string;
  /** The recipe, as its file says. */
  readonly recipe: unknown;
  readonly clip?: number;
  /** Whether the model is written. */
  readonly finished: boolean;
  /** Seconds since the log grew. */
  readonly idleSeconds?: number;
  readonly header?: WeightsHeader;
  readonly log: readonly TimedLine[];
  readonly samples: readonly WeightsSample[];
  /** All of them. */
  readonly events: readonly EventLine[];
  /** Ask again at once. */
  readonly more: boolean;
}

/** Only this machine may look. */
const HOST = "127.0.0.1";
const DEFAULT_PORT = 7860;
/** Ports that are tried, one after another. */
const TRIED = 100;
const LARGEST_FILE = 1 << 26;
/** Lines in one answer. */
const LINES = 5000;

/** What the page's script imports, from src/ in a checkout and from dist/ in the package. */
export const modules = [
  "server/client",
  "training/panels",
  "pictures/svg",
  "pictures/axis",
  "pictures/line-chart",
  "pictures/heat-map",
  "pictures/histogram",
  "record/words",
];
const ROOT = join(import.meta.dirname, "..");
/** `.ts` where sources run as they are, else `.js`. */
const EXTENSION = extname(import.meta.url);

const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/** The report is a file in the run's folder, and whoever made it may have been a stranger: it runs nothing. */
const REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'";

/**
 * Serves the live page of a run's folder on this machine alone. Everything is
 * read from the folder, which may belong to a run that goes on, was
 * interrupted or is finished; nothing is written. A port that is taken is
 * passed over for the next one.
 */
export async function watchRun(out: string, port: number = DEFAULT_PORT): Promise<Served> {
  const run = new RunOnDisk(out);
  const server = createServer((request, response) => {
    answer(run, request, response).catch(() => {
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  const at = await listen(server, port);
  return {
    url: `http://${HOST}:${at}/`,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

async function listen(server: Server, port: number): Promise<number> {
  for (let tried = 0; ; tried++) {
    const wanted = port === 0 ? 0 : port + tried;
    try {
      await new Promise<void>((done, fail) => {
        server.once("error", fail);
        server.listen(wanted, HOST, () => {
          server.off("error", fail);
          done();
        });
      });
      return (server.address() as { port: number }).port;
    } catch (error) {
      const isTaken = (error as NodeJS.ErrnoException).code === "EADDRINUSE";
      if (!isTaken || tried === TRIED || wanted >= 65535) throw error;
    }
  }
}

async function answer(run: RunOnDisk, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const send = (type: string, body: string, policy = PAGE_POLICY) => {
    response.writeHead(200, {
      "Content-Type": `${type}; charset=utf-8`,
      "Content-Security-Policy": policy,
      "Cross-Origin-Resource-Policy": "same-origin",
      "X-Content-Type-Options": "nosniff",
      "Referrer-Policy": "no-referrer",
      "Cache-Control": "no-store",
    });
    response.end(request.method === "HEAD" ? undefined : body);
  };
  const refuse = (status: number) => void response.writeHead(status, { "Content-Type": "text/plain" }).end();

  // A name of a stranger's that leads to this machine is not ours to answer.
  const { hostname } = new URL(`http://${request.headers.host ?? ""}`);
  if (hostname !== HOST && hostname !== "localhost") return refuse(403);
  if (request.method !== "GET" && request.method !== "HEAD") return refuse(405);
  const url = new URL(request.url ?? "/", `http://${HOST}`);
  const path = url.pathname;
  if (path === "/") return send("text/html", pageHtml(run.name, EXTENSION));
  if (path === "/style.css") return send("text/css", `${layout}${pageStyle}`);
  if (path === "/news") return send("application/json", JSON.stringify(await run.news(url.searchParams)));
  if (path === "/report.html") {
    const report = await run.read("report.html");
    return report === undefined ? refuse(404) : send("text/html", report, REPORT_POLICY);
  }
  const module = modules.find((stem) => path === `/${stem}${EXTENSION}`);
  return module === undefined ? refuse(404) : send("text/javascript", await script(module));
}

/** A module as browsers read it. */
async function script(stem: string): Promise<string> {
  const text = await readFile(join(ROOT, `${stem}${EXTENSION}`), "utf8");
  if (EXTENSION !== ".ts") return text;
  const { stripTypeScriptTypes } = await import("node:module");
  return stripTypeScriptTypes(text);
}

/** A run's folder, as far as it is there. */
class RunOnDisk {
  readonly name: string;
  readonly #out: string;
  readonly #log: Tail<TimedLine, EventLine>;
  readonly #weights: Tail<WeightsSample | (WeightsHeader & { readonly step: -1 })>;
  #reading: Promise<void> = Promise.resolve();

  constructor(out: string) {
    this.#out = out;
    this.name = basename(resolve(out));
    this.#log = new Tail(join(out, "log.jsonl"), timedLine, eventLine);
    this.#weights = new Tail(join(out, "weights.jsonl"), (value) => {
      const line = parseWeightsLine(value);
      return line && isHeader(line) ? { ...line, step: -1 } : line;
    });
  }

  /** What follows the steps that a page knows, unless it knows another revision. */
  async news(known: URLSearchParams): Promise<News> {
    // One after another: two pages must not read the same new lines.
    const read = this.#reading.then(async () => {
      await this.#log.refresh();
      await this.#weights.refresh();
    });
    this.#reading = read.catch(() => {});
    await read;
    const revision = `${this.#log.revision}.${this.#weights.revision}`;
    const from = (key: string) => (known.get("revision") === revision ? Number(known.get(key) ?? -1) : -1);
    const log = after(this.#log.lines, from("log"));
    const weights = after(this.#weights.lines, from("samples"));
    const samples = weights.filter((line) => line.step >= 0) as WeightsSample[];
    const [first] = this.#weights.lines;
    const recipe = await this.#recipe();
    const clip = (recipe as { optimizer?: { clip?: unknown } } | undefined)?.optimizer?.clip;
    const grew = await stat(join(this.#out, "log.jsonl")).catch(() => undefined);
    return {
      name: this.name,
      revision,
      recipe,
      ...(typeof clip === "number" && clip > 0 ? { clip } : {}),
      finished: (await stat(join(this.#out, "record.json")).catch(() => undefined)) !== undefined,
      ...(grew ? { idleSeconds: Math.max(0, (Date.now() - grew.mtimeMs) / 1000) } : {}),
      ...(first?.step === -1 ? { header: first as WeightsHeader } : {}),
      log: log.slice(0, LINES),
      samples: samples.slice(0, LINES),
      events: this.#log.asides,
      more: log.length > LINES || samples.length > LINES,
    };
  }

  async read(name: string): Promise<string | undefined> {
    const path = join(this.#out, name);
    const found = await stat(path).catch(() => undefined);
    if (!found?.isFile() || found.size > LARGEST_FILE) return undefined;
    return readFile(path, "utf8");
  }

  async #recipe(): Promise<unknown> {
    try {
      const recipe = parse((await this.read("recipe.yaml")) ?? "", { logLevel: "silent" });
      return JSON.parse(JSON.stringify(recipe)); // an anchor may hold itself
    } catch {
      return undefined;
    }
  }
}

/** Lines of later steps. */
function after<Line extends { readonly step: number }>(
  lines: readonly Line[],
  step: number,
): readonly Line[] {
  let i = lines.length;
  while (i > 0 && lines[i - 1].step > step) i--;
  return lines.slice(i);
}
