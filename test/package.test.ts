import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "..");
const node = process.execPath;

/**
 * What a stranger gets: the tarball of `npm pack`, installed in an empty
 * folder, imported with its types, bundled for a browser, and run.
 */
describe("the package", () => {
  let folder = "";
  const installed = () => join(folder, "node_modules/lowbit");

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "lowbit-package-"));
    npm(root, "pack", "--silent", "--pack-destination", folder);
    const tarball = readdirSync(folder).find((file) => file.endsWith(".tgz"))!;
    writeFileSync(
      join(folder, "package.json"),
      JSON.stringify({ name: "stranger", private: true, type: "module" }),
    );
    npm(folder, "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", `./${tarball}`);
  }, 300_000);

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("its tarball stays below 8 MB and holds no tests, no data and no training logs", () => {
    const tarball = readdirSync(folder).find((file) => file.endsWith(".tgz"))!;
    expect(statSync(join(folder, tarball)).size).toBeLessThan(8e6);
    const files = filesBelow(installed());
    expect(files.filter((file) => /\.(test|suite)\.[jt]s$|^bundled\/|^test\/|^bench\//.test(file))).toEqual(
      [],
    );
    expect(files).toContain("LICENSE");
    expect(files.filter((file) => file.endsWith(".wasm")).length).toBeGreaterThan(0);
  });

  test("imports with types", () => {
    writeFileSync(
      join(folder, "use.ts"),
      `import { evaluate, generate, inspect, formats, openBackend, type Job, type Progress } from "lowbit";
const controller = new AbortController();
const job: Job = { signal: controller.signal, onProgress: (p: Progress) => void p.done };
export async function use(): Promise<number> {
  const backend = await openBackend("wasm");
  backend.dispose();
  const record = await inspect({ model: "model" }, job);
  return record.bitsPerWeight.total + Object.keys(formats).length;
}
// @ts-expect-error a record's numbers are numbers
export const wrong: string = (await inspect({ model: "model" })).bytes;
void evaluate;
void generate;
`,
    );
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          module: "nodenext",
          target: "es2024",
          strict: true,
          noEmit: true,
          types: [],
          lib: ["es2024", "esnext", "dom"],
        },
        include: ["use.ts"],
      }),
    );
    const result = spawnSync(node, [join(root, "node_modules/typescript/bin/tsc"), "-p", folder], {
      encoding: "utf8",
    });
    expect(result.stdout + result.stderr).toBe("");
  });

  test("runs from JavaScript, on WebAssembly", () => {
    writeFileSync(
      join(folder, "run.mjs"),
      `import { openBackend } from "lowbit";
const backend = await openBackend("wasm", { threads: 1 });
const x = backend.upload({ shape: [1, 2], format: "f32", data: Float32Array.of(3, 4) });
const w = backend.upload({ shape: [1, 2], format: "f32", data: Float32Array.of(5, 6) });
console.log((await backend.read(backend.linear(x, w)))[0]);
backend.dispose();
`,
    );
    const result = spawnSync(node, ["run.mjs"], { cwd: folder, encoding: "utf8" });
    expect(result.stderr).toBe("");
    expect(result.stdout.trim()).toBe("39");
  });

  test("bundles for a browser, with no native file and nothing of Node in the bundle", async () => {
    writeFileSync(
      join(folder, "page.js"),
      `import { openBackend, formats } from "lowbit";
globalThis.lowbit = { openBackend, formats };
`,
    );
    const result = await build({
      absWorkingDir: folder,
      entryPoints: ["page.js"],
      bundle: true,
      write: false,
      outdir: "out",
      format: "esm",
      splitting: true,
      platform: "browser",
      metafile: true,
      loader: { ".wasm": "file" },
      logLevel: "silent",
    });
    const inputs = Object.keys(result.metafile.inputs);
    expect(inputs.filter((input) => input.endsWith(".node") || input.includes("build/Release"))).toEqual([]);
    const imported = Object.values(result.metafile.outputs).flatMap((output) => output.imports);
    expect(imported.map(({ path }) => path).filter((path) => path.startsWith("node:"))).toEqual([]);
  });

  test("its command line runs", () => {
    const cli = join(folder, "node_modules/.bin/lowbit");
    const version = spawnSync(cli, ["--version"], { cwd: folder, encoding: "utf8", env: withNode() });
    expect(version.stdout.trim()).toBe(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version);
    const doctor = spawnSync(cli, ["doctor", "--json"], { cwd: folder, encoding: "utf8", env: withNode() });
    const backends: { name: string; ok: boolean }[] = JSON.parse(doctor.stdout).backends;
    expect(backends.find(({ name }) => name === "wasm")?.ok).toBe(true);
    expect(backends.find(({ name }) => name === "reference")?.ok).toBe(true);
  });

  function npm(cwd: string, ...args: string[]): void {
    mkdirSync(cwd, { recursive: true });
    execFileSync("npm", args, { cwd, stdio: ["ignore", "ignore", "pipe"], env: withNode() });
  }
});

/** The project's own Node first on the path, as in npm scripts. */
function withNode(): NodeJS.ProcessEnv {
  return { ...process.env, PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}` };
}

function filesBelow(folder: string, prefix = ""): string[] {
  return readdirSync(join(folder, prefix), { withFileTypes: true }).flatMap((entry) => {
    const path = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    if (entry.name === "node_modules") return [];
    return entry.isDirectory() ? filesBelow(folder, path) : [path];
  });
}
