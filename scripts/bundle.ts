// Copies a trained model into bundled/: weights, config, tokenizer, recipe and record, and of the log every tenth step.
//
//   node scripts/bundle.ts OUT NAME      OUT as `lowbit train … -o OUT` left it
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [out, name] = process.argv.slice(2);
if (!out || !name) {
  console.error(
    "bundle: needs the folder of a finished training and a name: node scripts/bundle.ts OUT NAME",
  );
  process.exit(2);
}
const KEPT = [
  "model.safetensors",
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "recipe.yaml",
  "record.json",
];
const EVERY = 10;

const target = join(import.meta.dirname, "../bundled", name);
rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
for (const file of KEPT) copyFileSync(join(out, file), join(target, file));
const steps = readFileSync(join(out, "log.jsonl"), "utf8").trimEnd().split("\n");
// Validation losses are rare and all stay.
const thinned = steps.filter(
  (line, i) => (i + 1) % EVERY === 0 || line.includes('"validationLoss"') || i === 0,
);
writeFileSync(join(target, "log.jsonl"), `${thinned.join("\n")}\n`);
