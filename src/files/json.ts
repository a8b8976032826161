import { InputError } from "../tensor/tensor.ts";
import type { Json, JsonObject } from "./file.ts";

/** Configs, indexes and records are a few levels deep; much deeper ones overflow the stack of whoever writes them again. */
const DEEPEST = 100;

/**
 * What the values of a JSON text and our lists of them may take in memory, bytes: some fifty times the text, when it is
 * all short names or empty lists. The longest index in use, of 91,000 tensors, is counted as 23 MB.
 */
const MOST_MEMORY = 3 * 2 ** 23;

/**
 * The object in a JSON text of UTF-8. Names that occur twice in one object
 * are refused: readers disagree on which of the two counts.
 */
export function parseJson(bytes: Uint8Array, where: string): JsonObject {
  checkCost(bytes, MOST_MEMORY, where);
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
  checkText(text, where);
  return value;
}

/** Whether a JSON value is an object, no list and not null. */
export function isObject(value: unknown): value is JsonObject {
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

/**
 * Counts what a JSON text would take in memory, and its depth, before anything is made of it. Throws an InputError when
 * that is more than `most` bytes. Other texts than JSON are given some count; the parser refuses them.
 */
export function checkCost(bytes: Uint8Array, most: number, where: string): void {
  let cost = 0;
  let depth = 0;
  for (let i = 0; i < bytes.length; i++) {
    switch (bytes[i]) {
      case 0x22: // a string is passed over
        for (i++; i < bytes.length && bytes[i] !== 0x22; i++) if (bytes[i] === 0x5c) i++;
        break;
      case 0x7b:
      case 0x5b:
        cost += 64;
        if (++depth > DEEPEST) throw new InputError(`${where}: JSON nested deeper than ${DEEPEST}`);
        break;
      case 0x7d:
      case 0x5d:
        depth--;
        break;
      case 0x3a:
        cost += 240;
        break;
      case 0x2c:
        cost += 16;
    }
  }
  if (cost > most)
    throw new InputError(`${where}: its JSON would take ${cost} bytes of memory; ${most} are allowed`);
}

/**
 * Looks through a valid JSON text for what readers disagree on: a name that
 * one object holds twice.
 */
function checkText(text: string, where: string): void {
  const open: (Set<string> | undefined)[] = []; // names of the objects around, undefined for a list
  let last = "";
  for (let i = 0; i < text.length; i++) {
    switch (text[i]) {
      case "{":
      case "[":
        open.push(text[i] === "{" ? new Set() : undefined);
        break;
      case "}":
      case "]":
        open.pop();
        break;
      case '"': {
        const from = i;
        for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
        last = text.slice(from, i + 1);
        break;
      }
      case ":": {
        const names = open[open.length - 1]!;
        const name: string = JSON.parse(last);
        if (names.has(name)) throw new InputError(`${where}: the name ${JSON.stringify(name)} occurs twice`);
        names.add(name);
      }
    }
  }
}
