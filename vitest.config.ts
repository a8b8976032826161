import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";

/** The system's Chromium: WebAssembly is tested in a real browser where there is one. */
const chromium = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"].find(
  (path) => path && existsSync(path),
);
if (!chromium && process.env.LOWBIT_REQUIRE_CHROMIUM) {
  throw new Error(
    "vitest: LOWBIT_REQUIRE_CHROMIUM is set and no Chromium was found; install Debian's chromium",
  );
}

const inNode = {
  test: {
    name: "node",
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: ["**/*.browser.test.ts"],
    // What kernels are measured as in tests is not kept for real runs.
    env: { LOWBIT_CHROMIUM: chromium ?? "", XDG_CACHE_HOME: join(tmpdir(), "lowbit-vitest-cache") },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two at a time: the backends under test use threads of their own.
    maxWorkers: 2,
  },
};

const inChromium = {
  // Threads in WebAssembly need a cross-origin isolated page.
  server: {
    headers: {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    },
  },
  test: {
    name: "chromium",
    include: ["src/**/*.browser.test.ts"],
    testTimeout: 240_000,
    browser: {
      enabled: true,
      headless: true,
      screenshotFailures: false,
      provider: playwright({
        launchOptions: {
          executablePath: chromium,
          args: [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
          ],
        },
      }),
      instances: [{ browser: "chromium" as const }],
    },
  },
};

export default defineConfig({
  test: {
    projects: chromium ? [inNode, inChromium] : [inNode],
    reporters: ["default", "./test/summary-reporter.ts"],
  },
});
