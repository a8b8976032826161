import { isObject } from "../files/json.ts";

/** Differences shown; a person sees with fewer that it is another thing altogether. */
const MOST_SHOWN = 6;

/**
 * What differs between two JSON values, key by key, on one line:
 * `batch 16 → 32, optimizer.beta1 0.9 → 0.95`; empty when nothing does.
 */
export function differences(before: unknown, now: unknown): string {
  const found = [...changes("", before, now)];
  const shown = found.slice(0, MOST_SHOWN).join(", ");
  return found.length > MOST_SHOWN ? `${shown} and ${found.length - MOST_SHOWN} more` : shown;
}

function* changes(path: string, before: unknown, now: unknown): Generator<string> {
  if (isObject(before) && isObject(now)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(now)])) {
      yield* changes(path === "" ? key : `${path}.${key}`, before[key], now[key]);
    }
  } else if (JSON.stringify(before) !== JSON.stringify(now)) {
    yield `${path} ${word(before)} → ${word(now)}`;
  }
}

function word(value: unknown): string {
  if (value === undefined) return "none";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 39)}…` : text;
}
