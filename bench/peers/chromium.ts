// Our side of the comparison with wllama: the library, bundled, in a worker of a page in headless Chromium.
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { basename, join } from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import type { BrowserRun, BrowserSpeed } from "./browser.ts";

const ROOT = join(import.meta.dirname, "../..");
const WASM = join(ROOT, "src/backends/wasm");
const PAGE = `<!doctype html><script type="module">
window.run = (run) => new Promise((resolve, reject) => {
  const worker = new Worker("/worker.js", { type: "module" });
  worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
  worker.onerror = (event) => reject(new Error(event.message));
  worker.postMessage(run);
});
</script>`;
/** Memory is shared with threads only in a page that is isolated from others. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
const BROWSER = ["/usr/bin/chromium", "/usr/bin/google-chrome"];
const ARGUMENTS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Speed of a GGUF file with the WebAssembly backend in a new browser. */
export async function speedsInChromium(file: string, run: Omit<BrowserRun, "url">): Promise<BrowserSpeed> {
  const executablePath = [process.env.CHROMIUM, ...BROWSER].find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("bench:peers: no Chromium was found; install Debian's chromium");
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "browser.ts")],
    bundle: true,
    format: "esm",
    platform: "browser",
    write: false,
    logLevel: "error",
  });
  const server = createServer((request, response) => {
    const path = new URL(request.url!, "http://localhost").pathname;
    const send = (type: string, body: string | Uint8Array) =>
      response.writeHead(200, { ...ISOLATED, "Content-Type": type }).end(body);
    if (path === "/") return send("text/html", PAGE);
    if (path === "/worker.js") return send("text/javascript", outputFiles[0].contents);
    if (path.startsWith("/wasm/")) return send("application/wasm", readFileSync(join(WASM, basename(path))));
    if (path !== "/model.gguf") return response.writeHead(404, ISOLATED).end();
    response.writeHead(200, { ...ISOLATED, "Content-Length": statSync(file).size });
    return createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  try {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${port}/`);
    const all: BrowserRun = { ...run, url: "/model.gguf" };
    return await page.evaluate(
      (asked) => (globalThis as unknown as { run(asked: BrowserRun): Promise<BrowserSpeed> }).run(asked),
      all,
    );
  } finally {
    await browser.close();
    server.close();
  }
}
