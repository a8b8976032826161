#!/usr/bin/env node
// The command `lowbit`. In a checkout the sources run as they are; in the published package, what was compiled from them.
import { existsSync } from "node:fs";

const NEEDED = 24;
if (Number.parseInt(process.versions.node, 10) < NEEDED) {
  process.stderr.write(
    `lowbit: needs Node ${NEEDED} or newer, this is ${process.version}; in a checkout use: npm run lowbit -- …\n`,
  );
  process.exit(2);
}
const source = new URL("../src/commands/cli.ts", import.meta.url);
const { main } = await import(existsSync(source) ? source.href : "../dist/commands/cli.js");
process.exitCode = await main(process.argv.slice(2));
