import { expect, test } from "vitest";
import { TextStream } from "./stream.ts";

const text = "aé€😀 ﷽﻿ñ👩‍🚀z";
const bytes = new TextEncoder().encode(text);

test("every split of a multi-byte text in two gives whole characters and the same text", () => {
  for (let at = 0; at <= bytes.length; at++) {
    const stream = new TextStream();
    const pieces = [stream.push(bytes.subarray(0, at)), stream.push(bytes.subarray(at)), stream.end()];
    expect(pieces.join("")).toBe(text);
    for (const piece of pieces) expect(piece.isWellFormed() && !piece.includes("\ufffd")).toBe(true);
  }
});

test("byte by byte a character appears with its last byte", () => {
  const stream = new TextStream();
  const pieces = Array.from(new TextEncoder().encode("é😀"), (byte) => stream.push(Uint8Array.of(byte)));
  expect(pieces).toEqual(["", "é", "", "", "", "😀"]);
});

test("a character that never ends becomes the replacement character at the end", () => {
  const stream = new TextStream();
  expect(stream.push(Uint8Array.of(0x61, 0xf0, 0x9f))).toBe("a");
  expect(stream.end()).toBe("\ufffd");
});
