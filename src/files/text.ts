import { InputError } from "../tensor/tensor.ts";

/** UTF-8 text without a byte order mark; an InputError when it is not UTF-8 or has nothing but white space. */
export function decodeText(name: string, bytes: Uint8Array): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new InputError(`${name}: needs UTF-8 text, met bytes that are not; convert it first`);
  }
  if (text.trim() === "") throw new InputError(`${name}: is empty; give a text with something in it`);
  return text;
}
