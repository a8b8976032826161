import { InputError } from "../tensor/tensor.ts";
import type { Json, JsonObject } from "./file.ts";

/**
 * The object in a JSON text of UTF-8. Names that occur twice in one object
 * are refused: readers disagree on which of the two counts.
 */
export function parseJson(bytes: Uint8Array, where: string): JsonObject {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new InputError(`${where}: needs JSON in UTF-8, met bytes that are not UTF-8`);
  }
  let value: Json;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${where}: needs JSON, met ${firstLine((error as Error).message)}`);
  }
  if (!isObject(value)) throw new InputError(`${where}: needs a JSON object, met ${kindOf(value)}`);
  const twice = repeatedName(text);
  if (twice !== undefined) throw new InputError(`${where}: the name ${JSON.stringify(twice)} occurs twice`);
  return value;
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Sizes of a shape: whole numbers from 0 on whose product is a safe integer. */
export function isShape(value: Json | undefined): value is readonly number[] {
  if (!Array.isArray(value)) return false;
  let size = 1;
  for (const length of value) {
    if (!Number.isSafeInteger(length) || length < 0) return false;
    size *= length;
  }
  return Number.isSafeInteger(size);
}

function kindOf(value: Json): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "a list" : `a ${typeof value}`;
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0];
}

/** The first name that one object of a valid JSON text holds twice. */
function repeatedName(text: string): string | undefined {
  const open: Set<string>[] = [];
  let last = "";
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}:]/g)) {
    if (token === "{") open.push(new Set());
    else if (token === "}") open.pop();
    else if (token === ":") {
      const names = open[open.length - 1];
      const name: string = JSON.parse(last);
      if (names.has(name)) return name;
      names.add(name);
    } else last = token;
  }
  return undefined;
}
