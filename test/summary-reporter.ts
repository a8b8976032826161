import type { Reporter, TestModule } from "vitest/node";

/** Ends the output with one line that a script can read: `N passed, N failed`. */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    let passed = 0;
    let failed = unhandledErrors.length;
    const skipped: string[] = [];
    for (const module of modules) {
      const before = failed;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") passed++;
        else if (state === "failed") failed++;
        else skipped.push(test.fullName);
      }
      // A file that does not load, or whose set-up fails, has no failed test and must not count as none.
      if (failed === before && module.state() === "failed") failed++;
    }
    for (const name of skipped) console.log(`skipped: ${name}`);
    // After the default reporter's own summary, which is written when the process winds up.
    process.once("exit", () => console.log(`${passed} passed, ${failed} failed`));
  }
}
