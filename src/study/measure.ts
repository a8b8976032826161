import type { Backend } from "../backends/backend.ts";
import { losses } from "../evaluation/loss.ts";
import { type Sequence, windows } from "../evaluation/sequences.ts";
import { readSmall, readText, whatIs } from "../files/disk.ts";
import { writeFileAtomic } from "../files/index.ts";
import { fs, paths } from "../files/node.ts";
import { openTokenizer } from "../files/tokenizer-files.ts";
import { baseName, fingerprint } from "../record/make.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { tokenizerFrom } from "../tokenizers/index.ts";
import { loadWeights, openChecked } from "../verbs/load.ts";
import type { Named } from "./texts.ts";

/** A text as all models of a study see it. */
export interface HeldOut {
  readonly documents: readonly { readonly name: string; readonly windows: readonly Sequence[] }[];
  /** Of documents and tokenizer. */
  readonly sha256: string;
  readonly context: number;
}

/** How well a stored model predicts each window of the held-out documents; a file of its own beside the models. */
export interface Measurement {
  readonly version: 1;
  /** What was measured, by content: the stored weights, and documents and tokenizer of the text. */
  readonly model: Fingerprint;
  readonly text: string;
  readonly context: number;
  /** Bytes of the weights' files. */
  readonly bytes: number;
  /** Numbers in linear layers, and in embedding and head. */
  readonly parameters: { readonly linear: number; readonly others: number };
  /** Format of the linear layers. */
  readonly format: string;
  /** Nats per token over all documents. */
  readonly loss: number;
  readonly documents: readonly {
    readonly name: string;
    /** Of each window: sum of the losses in nats, and predicted tokens. */
    readonly sums: readonly number[];
    readonly counts: readonly number[];
  }[];
}

/** Cuts documents into windows with a tokenizer; the first window of each starts at its beginning. */
export async function heldOut(
  texts: AsyncIterable<Named>,
  tokenizerFile: string,
  context: number,
  job: Job,
): Promise<HeldOut> {
  const tokenizer = tokenizerFrom(await openTokenizer(tokenizerFile));
  const prints = [await fingerprint("tokenizer", await readText(tokenizerFile))];
  const documents = [];
  for await (const { name, text } of texts) {
    prints.push(await fingerprint(name, new TextEncoder().encode(text)));
    documents.push({ name, windows: (await windows(text, tokenizer, context, context, job)).all });
  }
  const all = new TextEncoder().encode(prints.map(({ sha256 }) => sha256).join("\n"));
  return { documents, sha256: (await fingerprint("", all)).sha256, context };
}

/**
 * Measures a model as it is stored, on the whole text; what `file` holds is
 * used when it is of the same model and text.
 */
export async function measureStored(
  folder: string,
  file: string,
  text: HeldOut,
  backend: Backend,
  job: Job,
): Promise<Measurement> {
  const opened = await openChecked(folder, {}, job);
  let known: Fingerprint;
  try {
    known = { name: opened.file.name, ...(await opened.file.fingerprint()) };
  } finally {
    await opened.file.close();
  }
  const before = await readMeasurement(file);
  if (
    before?.model.sha256 === known.sha256 &&
    before.text === text.sha256 &&
    before.context === text.context
  ) {
    return before;
  }
  const loaded = await loadWeights(folder, backend, {}, job);
  try {
    const sequences = text.documents.flatMap((document) => document.windows);
    const clusters = await losses(loaded, sequences, job);
    let at = 0;
    const documents = text.documents.map(({ name, windows }) => {
      const own = clusters.slice(at, at + windows.length);
      at += windows.length;
      return { name, sums: own.map(({ sum }) => sum), counts: own.map(({ count }) => count) };
    });
    const { model, file: stored } = loaded;
    const sizes = { linear: 0, embedding: 0, head: 0, norm: 0 };
    for (const { role, shape } of model.tensors) sizes[role] += shape.reduce((a, b) => a * b, 1);
    const linear = model.tensors.find(({ role }) => role === "linear")!;
    const tokens = clusters.reduce((sum, { count }) => sum + count, 0);
    const measurement: Measurement = {
      version: 1,
      model: known,
      text: text.sha256,
      context: text.context,
      bytes: stored.bytes,
      parameters: { linear: sizes.linear, others: sizes.embedding + sizes.head },
      format: stored.source.format(linear.name),
      loss: clusters.reduce((sum, cluster) => sum + cluster.sum, 0) / tokens,
      documents,
    };
    await fs().mkdir(paths().dirname(file), { recursive: true });
    await writeFileAtomic(file, new TextEncoder().encode(`${JSON.stringify(measurement)}\n`));
    return measurement;
  } finally {
    await loaded.free();
  }
}

/** A measurement that was kept; undefined when there is none. */
export async function readMeasurement(file: string): Promise<Measurement | undefined> {
  if ((await whatIs(file)) !== "file") return undefined;
  let kept: Measurement;
  try {
    kept = JSON.parse(new TextDecoder().decode(await readSmall(file, 1 << 28)));
  } catch {
    throw new InputError(`${baseName(file)}: is not JSON; remove it, and it is measured again`);
  }
  return kept.version === 1 ? kept : undefined;
}
