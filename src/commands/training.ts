import type { Record } from "../record/record.ts";
import { watchInThread } from "../server/worker.ts";
import type { TrainResult } from "../verbs/train.ts";
import { duration, size } from "./progress.ts";
import { servedAt } from "./serving.ts";

/** Shows the page of a folder for as long as the work in it takes. */
export async function watched<R>(out: string, port: number | true, work: () => Promise<R>): Promise<R> {
  const page = await watchInThread(out, port === true ? undefined : port);
  process.stderr.write(`${servedAt(page.url, port)}\n`);
  try {
    return await work();
  } finally {
    await page.close();
  }
}

/** What a person wants to know of a run that is over. */
export function showTrained(record: Record<TrainResult>): string {
  const {
    steps,
    tokens,
    tokensPerSecond,
    trainingSeconds,
    optimizer,
    validation,
    rollbacks,
    memory,
    generated,
    chosen,
    tuned,
  } = record;
  const { loss, lossStandardError } = validation;
  const error = lossStandardError === null ? "" : ` ± ${lossStandardError.toFixed(4)}`;
  const peak = memory.peak === undefined ? "" : `, ${size(memory.peak)} of tensors`;
  return [
    `${steps} steps, ${count(tokens)} tokens in ${duration(trainingSeconds)} (${tokensPerSecond.toFixed(0)} tokens/s${peak})`,
    ...(generated
      ? [`text of ${count(generated.tokens)} tokens in ${count(generated.texts)} parts, written by a model`]
      : []),
    ...(chosen ? [`only these learned: ${chosen.map(({ name }) => name).join(", ")}`] : []),
    ...rollbacks.map(({ at, to, why }) => `step ${at}: ${why}; went back to step ${to}`),
    ...(tuned
      ? [
          `${count(tuned.parameters)} numbers tuned in the matrices, ${tuned.bitsPerWeight.linear.toFixed(3)} bits per linear weight`,
        ]
      : []),
    `optimizer ${optimizer.name}, ${optimizer.stateBytesPerParameter.toFixed(2)} bytes of state per parameter`,
    `validation loss ${loss.toFixed(4)}${error} nats per token, measured on the model as stored`,
    ...(validation.widths ?? []).map(({ bits, loss: at }) => `  read at ${bits} bits ${at.toFixed(4)}`),
  ].join("\n");
}

/** 1,234,567 */
export function count(n: number): string {
  return n.toLocaleString("en-US");
}
