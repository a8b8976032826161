import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { ggufBytes, join, TYPE } from "../../test/gguf-bytes.ts";
import { shared } from "../../test/shared.ts";
import { openGguf } from "./gguf.ts";
import { memorySource } from "./memory.ts";

const open = (bytes: Uint8Array) => openGguf(memorySource(bytes, "x.gguf"));

/** float32 values, as the bytes of a file. */
const floats = (bigEndian: boolean, ...values: number[]) =>
  join(...values.map((value) => ggufBytes(3, bigEndian).f32(value)));

describe("what a file holds", () => {
  for (const version of [1, 2, 3]) {
    for (const bigEndian of version === 3 ? [false, true] : [false]) {
      test(`version ${version}, ${bigEndian ? "big" : "little"}-endian`, async () => {
        const b = ggufBytes(version, bigEndian);
        const gguf = await open(
          b.file({
            keys: [
              b.key("a.text", TYPE.string, b.string("naïve ▁")),
              b.key("a.u32", TYPE.u32, b.u32(4_000_000_000)),
              b.key("a.f32", TYPE.f32, b.f32(0.5)),
              b.key("a.yes", TYPE.bool, b.u8(1)),
              b.key("a.large", TYPE.u64, b.u64(2n ** 60n + 1n)),
              b.key("a.minus", TYPE.i64, b.i64(-7)),
              b.array("a.list", TYPE.string, [b.string("x"), b.string(""), b.string("yz")]),
              b.array("a.numbers", TYPE.i32, [b.u32(1), b.u32(2 ** 32 - 1)]),
            ],
            tensors: [b.tensor("m", [3, 2], 0, 0), b.tensor("v", [2], 0, 32)],
            data: join(floats(bigEndian, 1, 2, 3, 4, 5, 6), new Uint8Array(8), floats(bigEndian, 7, 8)),
          }),
        );
        expect(gguf).toMatchObject({ version, bigEndian });
        expect(Object.fromEntries(gguf.metadata)).toMatchObject({
          "a.text": "naïve ▁",
          "a.u32": 4_000_000_000,
          "a.f32": 0.5,
          "a.yes": true,
          "a.large": 2n ** 60n + 1n,
          "a.minus": -7,
          "a.list": { element: "string", count: 3 },
        });
        expect(await gguf.strings("a.list")).toEqual(["x", "", "yz"]);
        expect(await gguf.numbers("a.numbers")).toEqual(Float64Array.of(1, -1));
        expect(await gguf.numbers("a.none")).toBeUndefined();
        const m = gguf.tensors.get("m")!;
        expect(m.shape).toEqual([2, 3]);
        expect(await gguf.read(m)).toEqual(floats(false, 1, 2, 3, 4, 5, 6));
        expect(await gguf.read(gguf.tensors.get("v")!)).toEqual(floats(false, 7, 8));
      });
    }
  }

  test("big-endian blocks: only what is a number of several bytes turns round", async () => {
    const b = ggufBytes(3, true);
    const q4 = Uint8Array.from({ length: 18 }, (_, i) => i);
    const gguf = await open(
      b.file({
        tensors: [b.tensor("q", [32], 2, 0), b.tensor("i", [4], 24, 32)],
        data: join(q4, new Uint8Array(14), Uint8Array.of(1, 2, 3, 4)),
      }),
    );
    expect(await gguf.read(gguf.tensors.get("q")!)).toEqual(Uint8Array.of(1, 0, ...q4.subarray(2)));
    expect(await gguf.read(gguf.tensors.get("i")!)).toEqual(Uint8Array.of(1, 2, 3, 4));
  });

  test("an alignment of its own", async () => {
    const b = ggufBytes();
    const keys = [b.key("general.alignment", TYPE.u32, b.u32(64))];
    const tensors = [b.tensor("v", [1], 0, 0), b.tensor("w", [1], 0, 64)];
    const data = join(b.f32(1), new Uint8Array(60), b.f32(2));
    const gguf = await open(b.file({ keys, tensors, data, alignment: 64 }));
    expect(gguf.tensors.get("v")!.from % 64).toBe(0);
    expect(await gguf.read(gguf.tensors.get("w")!)).toEqual(b.f32(2));
  });

  test("headers longer than the pieces in which they are read", async () => {
    const b = ggufBytes();
    const words = Array.from({ length: 100_000 }, (_, i) => `word ${i}`);
    const keys = [b.array("list", TYPE.string, words.map(b.string)), b.key("after", TYPE.u32, b.u32(5))];
    const gguf = await open(b.file({ keys }));
    expect(gguf.metadata.get("after")).toBe(5);
    expect(await gguf.strings("list")).toEqual(words);
  });
});

describe("what a file cannot be ends in one line", () => {
  const b = ggufBytes();
  const vector = (offset: number | bigint) => b.tensor("v", [1], 0, offset);
  const cases: Record<string, readonly [file: Uint8Array, message: RegExp]> = {
    empty: [new Uint8Array(), /not a GGUF file: it has 0 bytes/],
    "another magic": [new TextEncoder().encode("GGML with more"), /does not begin with "GGUF"/],
    "only the magic": [new TextEncoder().encode("GGUF"), /truncated in its version/],
    "version 0": [join(new TextEncoder().encode("GGUF"), b.u32(0)), /GGUF version 0;/],
    "version 4": [ggufBytes(4).file({}), /GGUF version 4; versions 1, 2 and 3/],
    "no counts": [join(new TextEncoder().encode("GGUF"), b.u32(3)), /truncated in its counts/],
    "2^60 tensors": [
      b.file({ tensorCount: 2n ** 60n }),
      /number of tensors is 1152921504606846976; there can be/,
    ],
    "2^60 keys": [b.file({ keyCount: 2n ** 60n }), /number of keys is 1152921504606846976/],
    "more keys than there are": [b.file({ keyCount: 3 }), /truncated in key 0/],
    "more tensors than there are": [b.file({ tensorCount: 2 }), /truncated in the name of tensor 0/],
    "key longer than the file": [
      b.file({ keyCount: 1, keys: [b.u64(1000)] }),
      /length of key 0 is 1000; there can be 0/,
    ],
    "key of 2^60 bytes": [
      b.file({ keyCount: 1, keys: [b.u64(2n ** 60n)] }),
      /length of key 0 is 1152921504606846976/,
    ],
    "empty key": [b.file({ keys: [b.key("", TYPE.u8, b.u8(0))] }), /key 0 is empty/],
    "key that is not UTF-8": [b.file({ keyCount: 1, keys: [b.u64(1), b.u8(0xff)] }), /key 0 is not UTF-8/],
    "key twice": [
      b.file({ keys: [b.key("k", TYPE.u8, b.u8(0)), b.key("k", TYPE.u8, b.u8(1))] }),
      /key k occurs twice/,
    ],
    "key without a type": [b.file({ keyCount: 1, keys: [b.string("k")] }), /truncated in key k/],
    "key without a value": [b.file({ keys: [b.key("k", TYPE.f64)] }), /truncated in key k/],
    "unknown type of value": [
      b.file({ keys: [b.key("k", 13, b.u64(0))] }),
      /key k has type 13, which GGUF does not have/,
    ],
    "string beyond the file": [
      b.file({ keys: [b.key("k", TYPE.string, b.u64(9), b.u8(1))] }),
      /length of key k is 9; there can be 1/,
    ],
    "string that is not UTF-8": [
      b.file({ keys: [b.key("k", TYPE.string, b.u64(1), b.u8(0x80))] }),
      /key k is not UTF-8/,
    ],
    "array of a type that is none": [b.file({ keys: [b.array("k", 99, [])] }), /key k has type 99/],
    "array of 2^60 numbers": [
      b.file({ keys: [b.array("k", TYPE.u8, [], 2n ** 60n)] }),
      /count of key k is 1152921504606846976/,
    ],
    "array longer than the file": [
      b.file({ keys: [b.array("k", TYPE.u32, [b.u32(0)], 2)] }),
      /count of key k is 2; there can be 1/,
    ],
    "array of 2^60 strings": [
      b.file({ keys: [b.array("k", TYPE.string, [], 2n ** 60n)] }),
      /count of key k is/,
    ],
    "string of an array beyond the file": [
      b.file({ keys: [b.array("k", TYPE.string, [b.u64(2n ** 63n)])] }),
      /length of a string of key k is 9223372036854775808/,
    ],
    "arrays nested a thousand deep": [
      b.file({
        keys: [
          b.array(
            "k",
            TYPE.array,
            Array.from({ length: 1000 }, () => join(b.u32(TYPE.array), b.u64(1))),
            1,
          ),
        ],
      }),
      /array of arrays, which neither lowbit nor llama.cpp reads/,
    ],
    "alignment 0": [
      b.file({ keys: [b.key("general.alignment", TYPE.u32, b.u32(0))] }),
      /alignment must be a power of two up to 65536, is 0/,
    ],
    "alignment 0.5": [
      b.file({ keys: [b.key("general.alignment", TYPE.f32, b.f32(0.5))] }),
      /power of two up to 65536, is 0\.5/,
    ],
    "alignment 24": [
      b.file({ keys: [b.key("general.alignment", TYPE.u32, b.u32(24))] }),
      /power of two up to 65536, is 24/,
    ],
    "alignment 2^31": [
      b.file({ keys: [b.key("general.alignment", TYPE.u32, b.u32(2 ** 31))] }),
      /is 2147483648/,
    ],
    "alignment that is a list": [
      b.file({ keys: [b.array("general.alignment", TYPE.u32, [b.u32(32)])] }),
      /is an array/,
    ],
    "tensor twice": [b.file({ tensors: [vector(0), vector(0)], data: b.f32(0) }), /tensor v occurs twice/],
    "five dimensions": [
      b.file({ tensors: [b.tensor("t", [1, 1, 1, 1, 1], 0, 0)] }),
      /tensor t has 5 dimensions; ggml has at most 4/,
    ],
    "2^32-1 dimensions": [
      b.file({ tensorCount: 1, tensors: [join(b.string("t"), b.u32(2 ** 32 - 1))] }),
      /has 4294967295 dimensions/,
    ],
    "dimension of 0": [b.file({ tensors: [b.tensor("t", [32, 0], 0, 0)] }), /tensor t has a dimension of 0/],
    "dimension of 2^63": [
      b.file({ tensors: [b.tensor("t", [2n ** 63n], 0, 0)] }),
      /dimension 0 of tensor t is 9223372036854775808/,
    ],
    "dimensions whose product wraps": [
      b.file({ tensors: [b.tensor("t", [2 ** 32, 2 ** 32, 2 ** 32], 0, 0)] }),
      /is larger than any file/,
    ],
    "unknown ggml type": [b.file({ tensors: [b.tensor("t", [32], 999, 0)] }), /tensor t has ggml type 999/],
    "half a block": [
      b.file({ tensors: [b.tensor("t", [48, 2], 2, 0)] }),
      /rows of 48 weights are not whole blocks of 32, as q4_0 needs/,
    ],
    "tensor beyond the file": [
      b.file({ tensors: [b.tensor("t", [1000], 0, 0)], data: b.f32(0) }),
      /truncated: tensor t has 4000 bytes/,
    ],
    "offset beyond the file": [
      b.file({ tensors: [vector(4096)], data: b.f32(0) }),
      /the offset of tensor v is 4096/,
    ],
    "offset of 2^64-32": [
      b.file({ tensors: [vector(2n ** 64n - 32n)], data: b.f32(0) }),
      /the offset of tensor v is 18446744073709551584/,
    ],
    "offset off the alignment": [
      b.file({ tensors: [vector(4)], data: new Uint8Array(64) }),
      /begins at 4, which is no multiple of the alignment 32/,
    ],
    "tensors that overlap": [
      b.file({ tensors: [b.tensor("a", [16], 0, 0), b.tensor("b", [1], 0, 32)], data: new Uint8Array(64) }),
      /the tensors a and b overlap/,
    ],
    "tensor without an end": [b.file({ tensorCount: 1, tensors: [b.string("t")] }), /truncated in tensor t/],
  };
  for (const [name, [file, message]] of Object.entries(cases)) {
    test(name, async () => {
      const started = performance.now();
      await expect(open(file)).rejects.toThrow(message);
      await expect(open(file)).rejects.toMatchObject({
        name: "InputError",
        message: expect.stringMatching(/^x\.gguf: .+$/),
      });
      expect(performance.now() - started).toBeLessThan(2000);
    });
  }

  test("every truncation of a whole file", async () => {
    const whole = b.file({
      keys: [
        b.key("k", TYPE.string, b.string("text")),
        b.array("l", TYPE.string, [b.string("a"), b.string("b")]),
      ],
      tensors: [vector(0)],
      data: b.f32(1),
    });
    for (let length = 0; length < whole.byteLength; length++)
      await expect(open(whole.slice(0, length))).rejects.toMatchObject({ name: "InputError" });
    expect((await open(whole)).tensors.size).toBe(1);
  });

  test("a file of 1 TB that is mostly nothing: counts and lengths that its size would allow", async () => {
    // A sparse file: what was never written reads as zeros.
    const sparse = (start: Uint8Array) => ({
      name: "x.gguf",
      byteLength: 2 ** 40,
      async slice(from: number, to: number) {
        if (to - from > 2 ** 24) throw new Error(`${to - from} bytes asked for at once`);
        const bytes = new Uint8Array(to - from);
        bytes.set(start.subarray(from, to));
        return bytes;
      },
      async close() {},
    });
    const before = process.memoryUsage.rss();
    const started = performance.now();
    for (const [start, message] of [
      [b.file({ keyCount: 8192 }), /key 0 is empty/],
      [b.file({ keys: [b.key("k", TYPE.string, b.u64(2 ** 36))] }), /length of key k is 68719476736/],
      [b.file({ keys: [b.array("k", TYPE.string, [], 2 ** 36)] }), /count of key k is 68719476736/],
      [
        b.file({
          keys: [b.array("k", TYPE.string, [], 2 ** 20), b.array("l", TYPE.string, [], 2)],
          keyCount: 2,
        }),
        /key 1 is empty/,
      ],
    ] as const) {
      await expect(openGguf(sparse(start))).rejects.toThrow(message);
    }
    expect(performance.now() - started).toBeLessThan(2000);
    expect(process.memoryUsage.rss() - before).toBeLessThan(64e6);

    const long = await openGguf(sparse(b.file({ keys: [b.array("k", TYPE.u8, [], 2 ** 36)] })));
    await expect(long.numbers("k")).rejects.toThrow(/key k has 68719476736 numbers; too many/);
  });
});

describe("what is asked for and is not there", () => {
  const b = ggufBytes();
  const file = b.file({
    keys: [
      b.key("one", TYPE.u32, b.u32(1)),
      b.array("numbers", TYPE.u32, [b.u32(1)]),
      b.array("words", TYPE.string, [b.string("w")]),
    ],
  });
  test("a number where a list is needed", async () => {
    await expect((await open(file)).strings("one")).rejects.toThrow(
      "x.gguf: key one must be an array, is number",
    );
  });
  test("numbers for strings and strings for numbers", async () => {
    await expect((await open(file)).strings("numbers")).rejects.toThrow(
      "key numbers must hold strings, holds u32",
    );
    await expect((await open(file)).numbers("words")).rejects.toThrow(
      "key words must hold numbers, holds strings",
    );
  });
  test("a string of a list that is not UTF-8", async () => {
    const bad = b.file({ keys: [b.array("k", TYPE.string, [join(b.u64(1), b.u8(0xc0))])] });
    await expect((await open(bad)).strings("k")).rejects.toThrow("x.gguf: string 0 of key k is not UTF-8");
  });
  test("strings of more bytes than any vocabulary has", async () => {
    const long = b.string("x".repeat(2 ** 16));
    const bytes = b.file({
      keys: [
        b.array(
          "k",
          TYPE.string,
          Array.from({ length: 520 }, () => long),
        ),
      ],
    });
    await expect((await open(bytes)).strings("k")).rejects.toThrow(
      /strings of key k have more than 33554432 bytes/,
    );
  });
  test("keys and strings of more bytes than any header has", async () => {
    const long = b.string("x".repeat(2 ** 22));
    const keys = [1, 2, 3].map((i) => b.key(`k${i}`, TYPE.string, long));
    await expect(open(b.file({ keys }))).rejects.toThrow(/keys and strings have more than 8388608 bytes/);
  });
  test("a big-endian tensor of a type that nothing defines there", async () => {
    const big = ggufBytes(3, true);
    const gguf = await open(big.file({ tensors: [big.tensor("t", [256], 10, 0)], data: new Uint8Array(84) }));
    await expect(gguf.read(gguf.tensors.get("t")!)).rejects.toThrow(
      /t: nothing says how q2_k stands in a big-endian file/,
    );
  });
});

const vocabularies = shared("gguf-vocab");
test.skipIf(!existsSync(vocabularies))("files of llama.cpp, an old one of version 1 too", async () => {
  const read = (path: string) => openGguf(memorySource(readFileSync(shared(path)), path));
  const spm = await read("gguf-vocab/ggml-vocab-llama-spm.gguf");
  expect(spm).toMatchObject({ version: 3, bigEndian: false });
  expect(await spm.strings("tokenizer.ggml.tokens")).toHaveLength(32000);
  const old = await read("gguf-old-versions/ggml-vocab-llama.v1.gguf");
  expect(old.version).toBe(1);
  const tokens = await old.strings("tokenizer.ggml.tokens");
  expect(tokens).toEqual(await spm.strings("tokenizer.ggml.tokens"));
});
