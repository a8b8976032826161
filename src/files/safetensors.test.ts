import { expect, test } from "vitest";
import type { Part } from "../tensor/weight.ts";
import { memorySource } from "./memory.ts";
import { encodeSafetensors, formatOfDtype, layOut, readHeader, readPart } from "./safetensors.ts";

const part = (dtype: Part["dtype"], shape: number[], bytes: number[]): Part => ({
  dtype,
  shape,
  bytes: Uint8Array.from(bytes),
});

test("a file by hand: length, JSON, data", async () => {
  const json =
    '{"a":{"dtype":"F32","shape":[1],"data_offsets":[2,6]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}';
  const bytes = Uint8Array.from([
    json.length,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    ...new TextEncoder().encode(json),
    7,
    9,
    0,
    0,
    128,
    63,
  ]);
  const file = memorySource(bytes);
  const { tensors } = await readHeader(file);
  expect([...tensors.keys()].sort()).toEqual(["a", "b"]);
  expect(await readPart(file, tensors.get("a")!)).toEqual(part("f32", [1], [0, 0, 128, 63]));
  expect(await readPart(file, tensors.get("b")!)).toEqual(part("u8", [2], [7, 9]));
});

test("every part type comes back as it was written, empty tensors and scalars too", async () => {
  const parts = new Map<string, Part>([
    ["u8", part("u8", [3], [1, 2, 3])],
    ["i8", part("i8", [1, 1], [255])],
    ["u16", part("u16", [1], [1, 2])],
    ["i16", part("i16", [1], [1, 2])],
    ["f16", part("f16", [2], [1, 2, 3, 4])],
    ["bf16", part("bf16", [0, 7], [])],
    ["i32", part("i32", [], [1, 2, 3, 4])],
    ["f32", part("f32", [1], [0, 0, 192, 127])], // NaN
  ]);
  const file = memorySource(encodeSafetensors(parts, { format: "pt" }));
  const { tensors, metadata } = await readHeader(file);
  expect(metadata).toEqual({ format: "pt" });
  for (const [name, written] of parts) expect(await readPart(file, tensors.get(name)!)).toEqual(written);
});

test("written arrays start at multiples of their element size, the data at a multiple of 8", () => {
  const { header, tensors, byteLength } = layOut([
    { name: "codes", dtype: "u8", shape: [3] },
    { name: "scales", dtype: "f16", shape: [3] },
    { name: "data", dtype: "f32", shape: [2] },
  ]);
  expect(header.byteLength % 8).toBe(0);
  const from = (name: string) => tensors.get(name)!.from - header.byteLength;
  expect([from("data"), from("scales"), from("codes")]).toEqual([0, 8, 14]);
  expect(byteLength).toBe(header.byteLength + 17);
});

test("dtypes that the format knows and lowbit does not read are listed, and refused by name when read", async () => {
  const json = '{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}';
  const file = memorySource(
    Uint8Array.from([
      json.length,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      ...new TextEncoder().encode(json),
      ...new Array(8).fill(0),
    ]),
    "x.safetensors",
  );
  const tensor = (await readHeader(file)).tensors.get("ids")!;
  expect(formatOfDtype(tensor.dtype)).toBe("i64");
  await expect(readPart(file, tensor)).rejects.toThrow(
    "x.safetensors: tensor ids has dtype I64, which lowbit does not read",
  );
});

test("a tensor may be called __proto__", async () => {
  const file = memorySource(encodeSafetensors(new Map([["__proto__", part("u8", [1], [5])]])));
  const { tensors } = await readHeader(file);
  expect([...tensors.keys()]).toEqual(["__proto__"]);
});
