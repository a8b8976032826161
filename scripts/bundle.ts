// Copies a trained model into bundled/: weights, config, tokenizer, recipe and record, and of the log every tenth step.
//
//   node scripts/bundle.ts OUT NAME [STORED]
//
// OUT as `lowbit train … -o OUT` left it; STORED the same model in other formats, as `lowbit compress OUT -o STORED` left it:
// its weights, config and record are taken then, and the record of the training joins them as training.json.
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [out, name, stored = out] = process.argv.slice(2);
if (!out || !name) {
  console.error(
    "bundle: needs the folder of a finished training and a name: node scripts/bundle.ts OUT NAME [STORED]",
  );
  process.exit(2);
}
const TRAINED = ["tokenizer.json", "tokenizer_config.json", "recipe.yaml"];
const STORED = ["model.safetensors", "config.json", "generation_config.json", "record.json"];
const EVERY = 10;

const target = join(import.meta.dirname, "../bundled", name);
rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
for (const file of TRAINED) copyFileSync(join(out, file), join(target, file));
for (const file of STORED) copyFileSync(join(stored, file), join(target, file));
if (stored !== out) copyFileSync(join(out, "record.json"), join(target, "training.json"));
const steps = readFileSync(join(out, "log.jsonl"), "utf8").trimEnd().split("\n");
// Validation losses are rare and all stay.
const thinned = steps.filter(
  (line, i) => (i + 1) % EVERY === 0 || line.includes('"validationLoss"') || i === 0,
);
writeFileSync(join(target, "log.jsonl"), `${thinned.join("\n")}\n`);
