import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";

const chromium = process.env.LOWBIT_CHROMIUM;

// The browser's own tests are src/**/*.browser.test.ts, which vitest.config.ts leaves out where no browser is.
test.skipIf(!chromium)(
  "WebAssembly conformance runs in Chromium (without one, install Debian's chromium or set CHROMIUM to its path)",
  () => {
    expect(execFileSync(chromium!, ["--version"], { encoding: "utf8" })).toMatch(/Chrom(e|ium) \d+/);
  },
);
