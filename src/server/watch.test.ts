import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { afterAll, expect, test } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { readLog } from "../training/log.ts";
import { readWeightsLog } from "../training/weights-watch.ts";
import { train } from "../verbs/train.ts";
import { modules, type News, watchRun } from "./watch.ts";
import { watchInThread } from "./worker.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-watch-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const out = join(folder, "run");
const recipe = { ...tinyRecipe(writeTinyText(folder), "trilm"), measureEvery: 3 };
await train({ recipe, out, backend: "reference" });

/** A page served while `use` looks at it. */
async function served<R>(of: string, use: (url: string) => Promise<R>): Promise<R> {
  const page = await watchRun(of, 0);
  try {
    return await use(page.url);
  } finally {
    await page.close();
  }
}
const news = async (url: string, known = ""): Promise<News> => (await fetch(`${url}news?${known}`)).json();
const status = (url: string, headers: { host?: string }, method = "GET") =>
  new Promise<number>((resolve, reject) => {
    const asked = request(url, { headers, method }, ({ statusCode }) => resolve(statusCode!));
    asked.on("error", reject).end();
  });

test("the page's data are the run's log and measurements, whole and then what is new", () =>
  served(out, async (url) => {
    const log = await readLog(join(out, "log.jsonl"));
    const { samples, header } = await readWeightsLog(out);
    const all = await news(url);
    expect(all).toMatchObject({ name: "run", finished: true, more: false, clip: 1, log, samples });
    expect(all.header).toMatchObject({ family: "trilm", matrices: header!.matrices });
    expect((all.recipe as { seed: number }).seed).toBe(3);
    const rest = await news(url, `revision=${all.revision}&log=10&samples=6`);
    expect(rest.log.map(({ step }) => step)).toEqual([11, 12]);
    expect(rest.samples.map(({ step }) => step)).toEqual([9, 12]);
    expect((await news(url, "revision=other&log=10&samples=6")).log).toEqual(log);
  }));

test("a run that begins, is cut back and goes on; damaged files", async () => {
  const begun = join(folder, "begun");
  mkdirSync(begun);
  await served(begun, async (url) => {
    expect(await news(url)).toMatchObject({ finished: false, log: [], samples: [] });
    const lines = readFileSync(join(out, "log.jsonl"), "utf8").split("\n");
    const path = join(begun, "log.jsonl");
    writeFileSync(path, `${lines.slice(0, 5).join("\n")}\n${lines[5].slice(0, 20)}`);
    const first = await news(url);
    expect(first.log.length).toBe(5);
    appendFileSync(path, `${lines[5].slice(20)}\n`);
    const next = await news(url, `revision=${first.revision}&log=5&samples=-1`);
    expect(next.log.map(({ step }) => step)).toEqual([6]);
    writeFileSync(path, `${lines.slice(0, 3).join("\n")}\n`);
    const back = await news(url, `revision=${next.revision}&log=6&samples=-1`);
    expect(back.log.map(({ step }) => step)).toEqual([1, 2, 3]);
    expect(back.revision).not.toBe(next.revision);

    const event = { event: "rollback", at: 6, why: "a jump", to: 3, skipped: [4, 5] };
    appendFileSync(path, `${JSON.stringify(event)}\n${lines[3]}\n`);
    const went = await news(url, `revision=${back.revision}&log=3&samples=-1`);
    expect(went).toMatchObject({ revision: back.revision, events: [event] });
    expect(went.log.map(({ step }) => step)).toEqual([4]);

    writeFileSync(join(begun, "recipe.yaml"), "a: [&a [*a], !!js/function x");
    writeFileSync(
      join(begun, "weights.jsonl"),
      '{"lowbit":"weights","version":1}\n{"step":0,"matrices":[{}]}\n',
    );
    const damaged = await news(url);
    expect(damaged.recipe).toBeUndefined();
    expect(damaged.header).toBeUndefined();
    expect(damaged.samples).toEqual([]);
  });
});

test("only this machine is answered, only what is listed, with no leave to fetch or run anything else", () =>
  served(out, async (url) => {
    const { port } = new URL(url);
    expect(new URL(url).hostname).toBe("127.0.0.1");
    expect(await status(url, { host: `stranger.example:${port}` })).toBe(403);
    expect(await status(url, { host: `localhost:${port}` })).toBe(200);
    expect(await status(url, {}, "POST")).toBe(405);
    for (const path of [
      "recipe.yaml",
      "%2e%2e/recipe.yaml",
      "training/run.ts",
      "server/../../package.json",
      "x",
    ])
      expect(await status(url + path, {}), path).toBe(404);
    const page = await fetch(url);
    expect(page.headers.get("content-security-policy")).toMatch(/^default-src 'none'; script-src 'self';/);
    expect(page.headers.get("access-control-allow-origin")).toBeNull();
    const report = await fetch(`${url}report.html`);
    expect(report.headers.get("content-security-policy")).toMatch(/^sandbox; default-src 'none'/);
    expect(await report.text()).toBe(readFileSync(join(out, "report.html"), "utf8"));
  }));

test("the modules served are all that the page's script imports, without types", () =>
  served(out, async (url) => {
    const source = join(import.meta.dirname, "..");
    const needed = new Set<string>();
    const visit = async (stem: string) => {
      if (needed.has(stem)) return;
      needed.add(stem);
      const served = await (await fetch(`${url}${stem}.ts`)).text();
      expect(served, stem).not.toMatch(/^(interface|import type) |: string\b/m);
      const code = readFileSync(join(source, `${stem}.ts`), "utf8");
      for (const [, type, target] of code.matchAll(/^import (type )?[^;]*?from "(\.[^"]+)\.ts";/gms)) {
        if (!type) await visit(new URL(target, `http://x/${stem}`).pathname.slice(1));
      }
    };
    await visit("server/client");
    expect([...needed].sort()).toEqual([...modules].sort());
  }));

test("a port that is taken is passed over; a thread of its own serves the same", async () => {
  const first = await watchRun(out, 0);
  const taken = Number(new URL(first.url).port);
  const second = await watchInThread(out, taken);
  try {
    expect(Number(new URL(second.url).port)).toBeGreaterThan(taken);
    expect((await news(second.url)).log).toEqual((await news(first.url)).log);
  } finally {
    await first.close();
    await second.close();
  }
  await expect(fetch(first.url)).rejects.toThrow();
  await expect(fetch(second.url)).rejects.toThrow();
});

const executablePath = process.env.LOWBIT_CHROMIUM;

test.skipIf(!executablePath)(
  "in a browser: every picture is drawn, names of strangers stay text, keys move",
  async () => {
    const odd = join(folder, `<img src=x onerror="document.title='run'">`.replaceAll("/", ""));
    mkdirSync(odd);
    for (const name of ["log.jsonl", "recipe.yaml"])
      writeFileSync(join(odd, name), readFileSync(join(out, name)));
    const weights = readFileSync(join(out, "weights.jsonl"), "utf8");
    writeFileSync(
      join(odd, "weights.jsonl"),
      weights.replaceAll("q_proj", "<script>document.title=1</script>").replaceAll("trilm", "<b>trilm</b>"),
    );
    const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
    try {
      await served(odd, async (url) => {
        const page = await browser.newPage();
        const complaints: string[] = [];
        page.on("pageerror", (error) => complaints.push(error.message));
        page.on("console", (message) => complaints.push(message.text()));
        const asked: string[] = [];
        page.on("request", (request) => asked.push(request.url()));
        await page.goto(url);
        await page.waitForSelector("#flips-layers, .panel.wide svg path, .panel.wide svg rect", {
          timeout: 20_000,
        });
        const titles = await page.locator(".panel h3").allTextContents();
        expect(titles[0]).toBe("Loss, nats per token");
        expect(titles.at(-1)).toBe("Flips, % of weights, each layer");
        expect(await page.locator(".panel svg[role=img]").count()).toBe(titles.length);
        expect(await page.locator("#histograms svg").count()).toBe(14);
        expect(await page.locator("main script, main b, #facts b, h1 img").count()).toBe(0);
        expect(await page.title()).toContain("<img");

        const log = await readLog(join(out, "log.jsonl"));
        const rate = page.locator(".panel", { hasText: "Learning rate" });
        await rate.locator(".canvas").focus();
        await page.keyboard.press("ArrowLeft");
        await expect
          .poll(() => rate.locator("text.strong").textContent())
          .toBe(`rate ${log.at(-2)!.rate.toPrecision(4)}`);
        await page.keyboard.press("Escape");
        await expect.poll(() => rate.locator("line.cursor").count()).toBe(0);
        expect(complaints).toEqual([]);
        expect(asked.filter((address) => !address.startsWith(url) && !address.startsWith("data:"))).toEqual(
          [],
        );
      });
    } finally {
      await browser.close();
    }
  },
);
