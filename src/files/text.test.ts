import { describe, expect, test } from "vitest";
import { decodeText } from "./text.ts";

describe("decodeText", () => {
  test("names a text that is empty or not UTF-8", () => {
    expect(() => decodeText("a.txt", new TextEncoder().encode(" \n"))).toThrow("a.txt: is empty");
    expect(() => decodeText("a.txt", Uint8Array.of(0x61, 0xff))).toThrow("a.txt: needs UTF-8");
  });

  test("takes off a byte order mark", () => {
    expect(decodeText("a.txt", Uint8Array.of(0xef, 0xbb, 0xbf, 0x61))).toBe("a");
  });
});
