import { z } from "zod";
import { nearestName } from "./nearest-name.ts";
import { InputError } from "./tensor.ts";

export interface Checked {
  /** What was read, as errors begin. */
  readonly where: string;
  /** What a value that has no keys of its own is called. Default: options. */
  readonly whole?: string;
  /** Keys that lead to the value. */
  readonly above?: readonly string[];
  /** What is said after the words. */
  readonly after?: string;
}

/** The value with a schema's defaults; an InputError names the first key that is wrong, and of an unknown one the nearest that there is. */
export function checkedBy<T>(
  schema: z.ZodType<T>,
  value: unknown,
  { where, whole = "options", above = [], after = "" }: Checked,
): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  // A misspelt key is also a missing one; its name says more.
  const telling = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
  throw new InputError(`${where}: ${problem(telling, schema, value, above, whole)}${after}`);
}

/** What is wrong with a value that a schema refused, in words; `above` are the keys that lead to it. */
function problem(
  issue: z.core.$ZodIssue,
  schema: z.core.$ZodType,
  value: unknown,
  above: readonly string[],
  whole: string,
): string {
  const path = [...above, ...issue.path.map(String)];
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0];
    const known = keysAt(schema, issue.path.map(String));
    const full = (name: string) => [...path, name].join(".");
    const remedy = known.length > 0 ? `did you mean ${full(nearestName(key, known))}?` : "there are none";
    return `unknown key ${full(key)}; ${remedy}`;
  }
  const where = path.join(".") || whole;
  const choices = choicesOf(issue);
  const met = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown>)?.[key], value);
  const numbers = numbersOf(issue);
  if (numbers.length > 0) return `${where} is one of ${numbers.join(", ")}, got ${JSON.stringify(met)}`;
  if (choices.length > 0 && typeof met === "string") {
    const nearest = nearestName(met, choices);
    return `${where}: there is no ${met}; did you mean ${nearest}? There are ${choices.join(", ")}`;
  }
  if (issue.code === "invalid_type" && issue.message.endsWith("received undefined")) {
    return `${where} is missing; it needs ${["object", "record"].includes(issue.expected) ? "keys of its own" : `a ${issue.expected}`}`;
  }
  return `${where}: ${issue.message}`;
}

/** The words from which a value was to be chosen. */
function choicesOf(issue: z.core.$ZodIssue): string[] {
  const of: readonly unknown[] | undefined =
    issue.code === "invalid_value" ? issue.values : "options" in issue ? issue.options : undefined;
  return (of ?? []).filter((choice) => typeof choice === "string");
}

/** The numbers from which a value was to be chosen. */
function numbersOf(issue: z.core.$ZodIssue): number[] {
  if (issue.code !== "invalid_union") return [];
  const values = issue.errors.flat().flatMap((one) => (one.code === "invalid_value" ? one.values : []));
  return values.filter((value) => typeof value === "number");
}

/** Keys that the schema knows below a path; of alternatives, those of all of them. */
function keysAt(at: z.core.$ZodType, path: readonly string[]): string[] {
  if (at instanceof z.ZodOptional || at instanceof z.ZodDefault || at instanceof z.ZodPrefault) {
    return keysAt(at.unwrap(), path);
  }
  if (at instanceof z.ZodDiscriminatedUnion) return at.options.flatMap((option) => keysAt(option, path));
  if (!(at instanceof z.ZodObject)) return [];
  if (path.length === 0) return Object.keys(at.shape);
  return keysAt(at.shape[path[0]], path.slice(1));
}
