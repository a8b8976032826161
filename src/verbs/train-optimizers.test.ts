import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { train } from "./train.ts";

let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-optimizers-"));
  text = writeTinyText(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// Embedding and head have 4480 elements: enough for states of few bits.
test.each([
  ["adamw8", { stableEmbedding: false }, [2, 4.5]],
  ["adamw4", {}, [1, 4]],
  ["collage", { variant: "light" }, [6, 6.1]],
  ["collage", { variant: "plus" }, [8, 8.1]],
  ["muon", {}, [6, 8]],
] as const)(
  "%s %j: a run that was stopped twice ends in the same bits, and learns",
  async (name, options, bytes) => {
    const recipe = { ...tinyRecipe(text, "float"), optimizer: { name, ...options } };
    const label = `${name}-${Object.values(options).join()}`;
    const straight = join(folder, `${label}-straight`);
    const whole = await train({ recipe, out: straight, backend: "reference" });
    expect(whole.optimizer.name).toBe(name);
    expect(whole.optimizer.stateBytesPerParameter).toBeGreaterThan(bytes[0]);
    expect(whole.optimizer.stateBytesPerParameter).toBeLessThan(bytes[1]);
    expect(whole.validation.trainedLoss).toBeLessThan(Math.log(280) - 0.5);

    const out = join(folder, `${label}-stopped`);
    for (const stopAt of [4, 8]) {
      const controller = new AbortController();
      const job = {
        signal: controller.signal,
        onProgress: ({ task, done }: { task: string; done: number }) => {
          if (task === "train" && done === stopAt) controller.abort(new Error("stop"));
        },
      };
      await expect(train({ recipe, out, backend: "reference", resume: true }, job)).rejects.toThrow("stop");
    }
    const resumed = await train({ recipe, out, backend: "reference", resume: true });
    expect(bitsOf(out)).toEqual(bitsOf(straight));
    expect(resumed.optimizer).toEqual(whole.optimizer);
  },
);

test("an optimizer's own options belong to it alone", async () => {
  const recipe = { ...tinyRecipe(text, "float"), optimizer: { name: "adamw4", variant: "plus" } };
  await expect(train({ recipe: recipe as never, out: join(folder, "never") })).rejects.toThrow(
    /unknown key optimizer\.variant/,
  );
});
