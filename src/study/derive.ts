import { remove, whatIs } from "../files/disk.ts";
import { paths } from "../files/node.ts";
import { fillsRow } from "../formats/format.ts";
import { formatByName } from "../formats/index.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { readJson } from "../training/run-folder.ts";
import { type CompressResult, compress } from "../verbs/compress.ts";
import { type BackendChoice, openChecked } from "../verbs/load.ts";
import type { Named } from "./texts.ts";

/** A model to be made from another by GPTQ. */
export interface Derivation {
  readonly name: string;
  /** Folder of the trained model. */
  readonly source: string;
  readonly folder: string;
  /** The first whose groups fill the rows of the model. */
  readonly formats: readonly string[];
  readonly samples: number;
  readonly seed: number;
  readonly options: {
    readonly damping?: number;
    readonly actOrder?: boolean;
    readonly clip?: boolean;
    readonly trueSequential?: boolean;
  };
}

/** Makes the model, unless its folder holds just that one, made from the same source; the text is asked for when it is needed. */
export async function derive(
  { name, source, folder, formats, samples, seed, options }: Derivation,
  calibration: () => Promise<Named>,
  choice: BackendChoice,
  job: Job,
): Promise<void> {
  const { file, model } = await openChecked(source, {}, job);
  let format: string | undefined;
  let sha256: string;
  try {
    const rows = model.tensors.filter(({ role }) => role === "linear").map(({ shape }) => shape[1]);
    format = formats.find((format) => rows.every((cols) => fillsRow(formatByName(format), cols)));
    if (format === undefined) {
      throw new InputError(
        `${name}: none of ${formats.join(", ")} has groups that fill rows of ${[...new Set(rows)].join(" and ")}; add one that does`,
      );
    }
    sha256 = (await file.fingerprint()).sha256;
  } finally {
    await file.close();
  }
  const wanted = { method: "gptq" as const, format, samples, seed, ...options };
  if (await isMade(folder, sha256, wanted)) return;
  await remove(folder);
  await compress(
    { ...wanted, ...choice, model: source, output: folder, calibration: await calibration() },
    job,
  );
}

async function isMade(
  folder: string,
  sha256: string,
  { format, samples, seed, ...options }: { format: string; samples: number; seed: number },
): Promise<boolean> {
  const path = paths().join(folder, "record.json");
  if ((await whatIs(path)) !== "file") return false;
  const record = (await readJson(path)) as Record<CompressResult>;
  const made = record.options as {
    readonly [key: string]: unknown;
    readonly windows?: { readonly count: number; readonly seed: number };
    readonly methodOptions?: { readonly [key: string]: unknown };
  };
  const same = (key: string, value: unknown) =>
    value === undefined || made[key] === value || made.methodOptions?.[key] === value;
  return (
    record.models[0]?.sha256 === sha256 &&
    made.format === format &&
    made.windows?.count === samples &&
    made.windows?.seed === seed &&
    Object.entries(options).every(([key, value]) => same(key, value))
  );
}
