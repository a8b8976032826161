import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { describe, expect, test } from "vitest";
import { formats } from "../src/formats/index.ts";
import { lowbitVersion } from "../src/record/version.ts";

const root = join(import.meta.dirname, "..");
const source = join(root, "src");
const text = (path: string) => readFileSync(join(root, path), "utf8");

interface Room {
  readonly line: number;
  /** Place on its line: imports may go to the left. */
  readonly place: number;
  readonly shared: ReadonlySet<string>;
}

/** The table between the marks in docs/architecture.md. */
function rooms(): Map<string, Room> {
  const block = /<!-- rooms -->\n([\s\S]*?)<!-- \/rooms -->/.exec(text("docs/architecture.md"))?.[1] ?? "";
  const found = new Map<string, Room>();
  for (const row of block.split("\n").slice(2)) {
    const [line, room, , shared] = row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (!room) continue;
    const files = [...shared.matchAll(/`([^`]+)`/g)].map((match) => match[1]);
    found.set(room.replaceAll("`", ""), { line: Number(line), place: found.size, shared: new Set(files) });
  }
  return found;
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

const sources = filesBelow(source).filter((path) => path.endsWith(".ts"));
const isTest = (path: string) => /\.(test|suite)\.ts$/.test(path);
const roomOf = (path: string) => (dirname(path) === source ? "" : relative(source, path).split(/[\\/]/)[0]);

function importsOf(path: string): string[] {
  const code = readFileSync(path, "utf8");
  return [...code.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map((match) =>
    join(dirname(path), match[1]),
  );
}

describe("the house", () => {
  const plan = rooms();

  test("every room of src/ is in the plan, and no other", () => {
    const folders = readdirSync(source, { withFileTypes: true })
      .filter((e) => e.isDirectory())
      .map((e) => e.name);
    expect([...plan.keys()].sort()).toEqual(folders.sort());
  });

  test("imports go down, to the left, or to what a room shares", () => {
    const wrong: string[] = [];
    for (const path of sources) {
      const from = roomOf(path);
      if (from === "" || isTest(path)) continue;
      for (const target of importsOf(path)) {
        const to = roomOf(target);
        const allowed =
          from === to
            ? plan.get(to)!.shared.has(basename(target)) || ["index.ts", "cli.ts"].includes(basename(path))
            : to !== "" &&
              plan.get(to)!.place < plan.get(from)!.place &&
              plan.get(to)!.line <= plan.get(from)!.line;
        if (!allowed) wrong.push(`${relative(source, path)} -> ${relative(source, target)}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test("the plan names only shared files that exist", () => {
    const missing = [...plan].flatMap(([room, { shared }]) =>
      [...shared].filter((file) => !existsSync(join(source, room, file))).map((file) => `${room}/${file}`),
    );
    expect(missing).toEqual([]);
  });

  test("no cycles among files", () => {
    const state = new Map<string, "open" | "done">();
    const cycles: string[] = [];
    const visit = (path: string, trail: string[]) => {
      if (state.get(path) === "done") return;
      if (state.get(path) === "open") {
        cycles.push([...trail.slice(trail.indexOf(path)), path].map((p) => relative(source, p)).join(" -> "));
        return;
      }
      state.set(path, "open");
      for (const target of runtimeImportsOf(path)) visit(target, [...trail, path]);
      state.set(path, "done");
    };
    for (const path of sources) visit(path, []);
    expect(cycles).toEqual([]);
  });

  test("every import names a file that exists", () => {
    const missing = sources.flatMap((path) =>
      importsOf(path)
        .filter((target) => !existsSync(target) && !target.endsWith(".wasm"))
        .map((target) => `${relative(root, path)} -> ${relative(root, target)}`),
    );
    expect(missing).toEqual([]);
  });

  test("an operation has its C++ beside its TypeScript, and the reverse", () => {
    const kernels = join(source, "kernels");
    const index = text("src/kernels/index.ts");
    const stems = [...index.matchAll(/from "\.\/([a-z0-9-]+)\.ts"/g)]
      .map((m) => m[1])
      .filter((s) => !plan.get("kernels")?.shared.has(`${s}.ts`));
    for (const stem of stems) expect(existsSync(join(kernels, `${stem}.cpp`)), `${stem}.cpp`).toBe(true);
  });

  test("a format's C++ stands beside its TypeScript and in the list of formats.h", () => {
    const folder = join(source, "formats");
    const list = text("src/formats/formats.h");
    const stems = new Set([...formats.values()].map(({ stem }) => stem).filter((stem) => stem !== "f32"));
    for (const stem of stems) {
      expect(existsSync(join(folder, `${stem}.h`)), `${stem}.h`).toBe(true);
      expect(list).toContain(`each(${stem}, `);
    }
  });

  test("version numbers agree", () => {
    expect(JSON.parse(text("package.json")).version).toBe(lowbitVersion);
    expect(text("CHANGELOG.md")).toContain(`## ${lowbitVersion}`);
  });

  test("only tensor/rounding.ts rounds with Math.round in numerics", () => {
    const numerics = ["tensor", "formats", "kernels", "methods", "optimization", "evaluation", "autograd"];
    const wrong = sources.filter(
      (path) =>
        numerics.includes(roomOf(path)) &&
        !isTest(path) &&
        !path.endsWith("rounding.ts") &&
        /Math\.round\(/.test(readFileSync(path, "utf8")),
    );
    expect(wrong.map((path) => relative(source, path))).toEqual([]);
  });
});

describe("README", () => {
  /** Lines of the tree: `  src/kernels/   one operation, one stem`. */
  const tree = /<!-- tree -->\n```\n([\s\S]*?)```/.exec(text("README.md"))?.[1] ?? "";
  const shown = tree.split("\n").flatMap((line) => /^(\S+\/)\s+\S/.exec(line)?.[1] ?? []);

  test("its tree equals the disk", () => {
    const ignored = new Set([".git", "node_modules", "dist", "build", "build-sanitize", "runs", ".vitest"]);
    const onDisk = readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !ignored.has(entry.name))
      .map((entry) => `${entry.name}/`);
    const inSource = readdirSync(source, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => `src/${entry.name}/`);
    expect(shown.sort()).toEqual([...onDisk, ...inSource].sort());
  });

  test("every command that it shows exists", () => {
    const scripts = JSON.parse(text("package.json")).scripts;
    const named = [...text("README.md").matchAll(/npm run ([a-z:]+)/g)].map((match) => match[1]);
    for (const name of named) expect(scripts, name).toHaveProperty(name);
  });
});

/** Imports that remain when types are stripped: a cycle of types alone is harmless. */
function runtimeImportsOf(path: string): string[] {
  const code = readFileSync(path, "utf8");
  return [...code.matchAll(/^(?:import|export)\s+(?!type\b)[^"';]*?from\s+"(\.[^"]+)"/gm)].map((match) =>
    join(dirname(path), match[1]),
  );
}
