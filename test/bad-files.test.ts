import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { writeAt } from "../src/files/disk.ts";
import {
  checkTensors,
  checkVocabulary,
  memorySource,
  openModel,
  openTokenizer,
  writeModel,
} from "../src/files/index.ts";
import { openLlama2c } from "../src/files/llama2c.ts";
import { encodeSafetensors, readHeader } from "../src/files/safetensors.ts";
import { describe as describeModel } from "../src/models/index.ts";
import { InputError } from "../src/tensor/tensor.ts";
import { packedWeight, type Weight } from "../src/tensor/weight.ts";
import { tokenizerFrom } from "../src/tokenizers/index.ts";
import { shared } from "./shared.ts";

/** Files that are damaged or hostile: each gives one clear line, as an InputError (exit status 2), before anything large is allocated. */

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** What is thrown must be an InputError whose one line contains `line`. */
async function refused(work: Promise<unknown> | (() => unknown), line: string): Promise<void> {
  const error = await (async () => (typeof work === "function" ? work() : work))().then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  expect(error.message).toContain(line);
  expect(error.message).not.toContain("\n");
}

const f32 = (shape: number[]): Weight => {
  const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1));
  return packedWeight(shape, "f32", { data: { dtype: "f32", shape, bytes } });
};

/** safetensors bytes of a header as given and so many bytes of data. */
function safetensors(header: string, data: number, length: number | bigint = header.length): Uint8Array {
  const bytes = new Uint8Array(8 + header.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(new TextEncoder().encode(header), 8);
  return bytes;
}

const read = (bytes: Uint8Array) => readHeader(memorySource(bytes, "bad.safetensors"));
const entry = (dtype: string, shape: unknown, from: number, to: number) =>
  JSON.stringify({ dtype, shape, data_offsets: [from, to] });

describe("safetensors", () => {
  test("truncated file", async () => {
    const whole = encodeSafetensors(
      new Map([["w", { dtype: "f32", shape: [4], bytes: new Uint8Array(16) }]]),
    );
    for (let length = 0; length < whole.length; length++) {
      const error = await read(whole.subarray(0, length)).catch((reason) => reason);
      expect(error).toBeInstanceOf(InputError);
    }
    await refused(
      read(whole.subarray(0, 5)),
      "bad.safetensors: truncated: a safetensors file has at least 8 bytes, this one 5",
    );
    await refused(
      read(whole.subarray(0, whole.length - 1)),
      "tensor w: bytes 0…16 leave the file, whose data has 15 bytes",
    );
  });

  test("wrong magic", async () => {
    await refused(read(safetensors("[1]", 0)), "not a safetensors file: its header does not begin with {");
    await refused(read(new TextEncoder().encode("GGUF\u0003\0\0\0 and so on")), "not a safetensors file");
  });

  test("header length beyond the file", async () => {
    await refused(read(safetensors("{}", 4, 7)), "header length 7 is beyond the file's 14 bytes");
    await refused(read(safetensors("{}", 0, 2n ** 64n - 1n)), "header length 18446744073709551615 is beyond");
  });

  test("header longer than any in use", async () => {
    const source = { ...memorySource(safetensors("{}", 0, 100_000_001)), byteLength: 2 ** 40 };
    await refused(readHeader(source), "header of 100000001 bytes; 8388608 are read");
  });

  test("ranges that overlap", async () => {
    const header = `{"a":${entry("U8", [4], 0, 4)},"b":${entry("U8", [4], 3, 7)}}`;
    await refused(read(safetensors(header, 7)), "the ranges of tensors a and b overlap");
  });

  test("ranges that leave the file, run backwards or are no numbers", async () => {
    await refused(read(safetensors(`{"a":${entry("U8", [4], 0, 4)}}`, 3)), "bytes 0…4 leave the file");
    await refused(read(safetensors(`{"a":${entry("U8", [4], 4, 0)}}`, 4)), "bytes 4…0 leave the file");
    await refused(
      read(safetensors(`{"a":${entry("U8", [1], -1, 0)}}`, 4)),
      "needs dtype, shape and two data_offsets",
    );
    await refused(
      read(safetensors(`{"a":${entry("U8", [1], 0.5, 1.5)}}`, 4)),
      "needs dtype, shape and two data_offsets",
    );
    await refused(
      read(safetensors(`{"a":${entry("U8", [1], 2 ** 60, 2 ** 60)}}`, 4)),
      "needs dtype, shape and two data_offsets",
    );
  });

  test("gaps and bytes that belong to nothing", async () => {
    const header = `{"a":${entry("U8", [2], 0, 2)},"b":${entry("U8", [2], 3, 5)}}`;
    await refused(read(safetensors(header, 5)), "1 bytes between a and tensor b belong to nothing");
    await refused(
      read(safetensors(`{"a":${entry("U8", [2], 1, 3)}}`, 3)),
      "1 bytes between the header and tensor a",
    );
    await refused(
      read(safetensors(`{"a":${entry("U8", [2], 0, 2)}}`, 3)),
      "the last 1 bytes belong to no tensor",
    );
  });

  test("unknown dtype", async () => {
    await refused(read(safetensors(`{"a":${entry("Q4", [2], 0, 2)}}`, 2)), 'tensor a: unknown dtype "Q4"');
    await refused(read(safetensors(`{"a":${entry("toString", [2], 0, 2)}}`, 2)), 'unknown dtype "toString"');
  });

  test("shape and dtype that need other bytes than the range has", async () => {
    await refused(
      read(safetensors(`{"a":${entry("F32", [2, 2], 0, 8)}}`, 8)),
      "F32 of shape 2×2 needs 16 bytes, its range has 8",
    );
    await refused(
      read(safetensors(`{"a":${entry("F32", [2 ** 40, 2 ** 40], 0, 0)}}`, 0)),
      "needs dtype, shape and two data_offsets",
    );
    await refused(
      read(safetensors(`{"a":${entry("U8", "12", 0, 2)}}`, 2)),
      "needs dtype, shape and two data_offsets",
    );
  });

  test("a name that occurs twice, also when it is spelled differently", async () => {
    const a = entry("U8", [1], 0, 1);
    await refused(read(safetensors(`{"a":${a},"a":${a}}`, 1)), 'the name "a" occurs twice');
    await refused(read(safetensors(`{"a":${a},"\\u0061":${a}}`, 1)), 'the name "a" occurs twice');
  });

  test("a header that is not JSON, not UTF-8, or not of strings", async () => {
    await refused(read(safetensors('{"a":', 0)), "bad.safetensors: header: needs JSON, met");
    const broken = safetensors('{"x":"aa"}', 0);
    broken[8 + 6] = 0xff;
    await refused(read(broken), "met bytes that are not UTF-8");
    await refused(read(safetensors('{"__metadata__":{"a":1}}', 0)), "__metadata__ must hold strings only");
    await refused(read(safetensors('{"a":null}', 0)), "tensor a: needs dtype, shape and two data_offsets");
  });

  test("a header that would overflow a stack, and names that would break a line or fill the screen", async () => {
    const deep = (open: string, close: string) => `{"a":${open.repeat(1e5)}1${close.repeat(1e5)}}`;
    await refused(read(safetensors(deep("[", "]"), 0)), "header: JSON nested deeper than 100");
    await refused(read(safetensors(deep('{"a":', "}"), 0)), "header: JSON nested deeper than 100");
    await refused(
      read(safetensors(`{"${"\\n".repeat(1e6)}":1}`, 0)),
      "needs dtype, shape and two data_offsets",
    );
    await refused(read(safetensors(`{"a\\nb\\u001b":1}`, 0)), "tensor a\\nb\\u001b: needs dtype");
    const long = await read(safetensors(`{"a":${entry("x".repeat(1e6), [1], 0, 1)}}`, 1)).catch(
      (error) => error,
    );
    expect(long.message.length).toBeLessThan(1000);
  });
});

describe("folders", () => {
  const model = async (config: object, weights: [string, Weight][] = [["w", f32([4])]]) => {
    const path = join(folder, "model");
    await writeModel(path, { config: config as never }, weights);
    return path;
  };
  const edit = (path: string, change: (config: Record<string, never>) => void) => {
    const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
    change(config);
    writeFileSync(join(path, "config.json"), JSON.stringify(config));
  };
  const int4 = () =>
    packedWeight([2, 64], "int4", {
      codes: { dtype: "u8", shape: [2, 32], bytes: new Uint8Array(64) },
      scales: { dtype: "f16", shape: [2, 1], bytes: new Uint8Array(4) },
    });

  test("nothing there, no config, no weights, other weights", async () => {
    await refused(
      openModel(join(folder, "none")),
      "no such file or folder; a model is a folder, a .gguf, a llama2.c .bin",
    );
    await refused(openModel(folder), "the folder holds no config.json");
    writeFileSync(join(folder, "config.json"), "{}");
    await refused(openModel(folder), "needs model.safetensors, met none");
    writeFileSync(join(folder, "pytorch_model.bin"), "");
    await refused(openModel(folder), "needs model.safetensors, met pytorch_model.bin");
  });

  test("config.json that is cut off", async () => {
    const path = await model({ vocab_size: 3 });
    writeFileSync(join(path, "config.json"), '{ "vocab_size": ');
    await refused(openModel(path), "config.json: needs JSON, met");
  });

  test("shape that does not fit the config, and missing tensor", async () => {
    const { source, close } = await openModel(await model({}, [["model.norm.weight", f32([4])]]));
    await refused(
      () => checkTensors("model", source, [{ name: "model.norm.weight", shape: [8] }]),
      "model: tensor model.norm.weight must have shape 8 by its config, has 4",
    );
    await refused(
      () => checkTensors("model", source, [{ name: "lm_head.weight", shape: [3, 4] }]),
      "model: tensor lm_head.weight is missing; its config asks for it",
    );
    await refused(source.read("lm_head.weight"), "has no tensor lm_head.weight");
    await close();
  });

  test("a config that asks for more blocks than there is memory to list", async () => {
    const config = { hidden_size: 2, num_attention_heads: 1, num_hidden_layers: 2 ** 24 };
    await refused(
      () => describeModel({ ...config, vocab_size: 2, max_position_embeddings: 2, intermediate_size: 2 }),
      "config: num_hidden_layers must be a whole number from 1 to 4096, got 16777216",
    );
  });

  test("vocabulary larger than the tokenizer", async () => {
    await refused(
      () => checkVocabulary("model", 32000, { vocabulary: 512 }),
      "model: its vocabulary of 32000 is larger than the tokenizer's 512; give the tokenizer that belongs to it",
    );
    expect(checkVocabulary("model", 512, { vocabulary: 512 })).toBeUndefined();
  });

  test("another quantizer's weights, and a newer version of ours", async () => {
    const path = await model({}, [["w", int4()]]);
    edit(path, (config) => Object.assign(config.quantization_config, { version: 2 }));
    await refused(
      openModel(path),
      "quantization_config has version 2, this lowbit knows up to 1; update lowbit",
    );
    edit(path, (config) => Object.assign(config.quantization_config, { quant_method: "gptq" }));
    await refused(openModel(path), 'quantized by "gptq", which lowbit does not read');
    edit(path, (config) => Reflect.deleteProperty(config, "quantization_config"));
    writeFileSync(join(path, "record.json"), '{"record":"lowbit","version":2}');
    await refused(openModel(path), "record.json has version 2, this lowbit knows 1; update lowbit");
  });

  test("parts of a weight that are missing, of another type, or of another shape", async () => {
    const path = await model({}, [["w", int4()]]);
    const weights = (change: object) =>
      edit(path, (config) => Object.assign(config.quantization_config, { weights: change }));
    weights({ w: { format: "int8", shape: [2, 64] } });
    await refused(openModel(path), "weight w: part w.codes must have shape 2×64, has 2×32");
    weights({ w: { format: "int4-offset", shape: [2, 64] } });
    await refused(openModel(path), "weight w: its part w.offsets is missing");
    weights({ w: { format: "int5", shape: [2, 64] } });
    await refused(openModel(path), 'weight w: format: no format is called "int5"');
    weights({ w: { format: "tq2_0", shape: [2, 64] } });
    await refused(
      openModel(path),
      "weight w: tq2_0: rows must be whole groups of 256 weights, got rows of 64",
    );
    weights({ w: { kind: "lattice", shape: [2, 64] } });
    await refused(openModel(path), 'weight w: kind "lattice" is not known to this lowbit');
    weights({ w: { kind: "sum", shape: [2, 64], terms: [] } });
    await refused(openModel(path), "weight w: needs a list of terms");
    let nested: object = { format: "int4", shape: [2, 64] };
    for (let depth = 0; depth < 40; depth++) nested = { kind: "sum", shape: [2, 64], terms: [nested] };
    weights({ w: nested });
    await refused(openModel(path), "nested deeper than 16");
  });

  test("an index that leaves the folder or names a tensor that is not there", async () => {
    const path = await model({});
    cpSync(join(path, "model.safetensors"), join(path, "part.safetensors"));
    rmSync(join(path, "model.safetensors"));
    const index = (map: object) =>
      writeFileSync(join(path, "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    index({ w: "../../secret.safetensors" });
    await refused(
      openModel(path),
      '"../../secret.safetensors" is not the name of a safetensors file beside it',
    );
    index({ x: "part.safetensors" });
    await refused(openModel(path), "part.safetensors: the index says that it holds tensor x; it does not");
    index({ w: "absent.safetensors" });
    await refused(openModel(path), "absent.safetensors: no such file or folder");
    index({ w: "part.safetensors" });
    await (await openModel(path)).close();
  });

  test("output folder that exists and is not ours", async () => {
    const theirs = join(folder, "theirs");
    mkdirSync(theirs);
    writeFileSync(join(theirs, "thesis.tex"), "years of work");
    for (const into of ["replace", "beside"] as const) {
      await refused(
        writeModel(theirs, { config: {}, into }, [["w", f32([4])]]),
        "theirs: output folder exists and was not made by lowbit; choose another name or remove it",
      );
    }
    expect(readdirSync(theirs)).toEqual(["thesis.tex"]);
    expect(readdirSync(folder)).toEqual(["theirs"]);
  });

  test("disk full while writing: the old model is intact, nothing temporary is left", async () => {
    const path = await model({ vocab_size: 3 });
    const before = readdirSync(path).map((name) => [name, readFileSync(join(path, name), "utf8")]);
    const config = { vocab_size: 4 };
    const weights = [["w", f32([1000])] as const];
    const whole = join(folder, "whole");
    await writeModel(whole, { config }, weights);
    const total = readdirSync(whole).reduce((bytes, name) => bytes + statSync(join(whole, name)).size, 0);
    rmSync(whole, { recursive: true });
    // Full in the header, in the weights, and in each of the small files after them.
    for (let room = 0; room < total; room += room < 4000 ? 500 : 50) {
      let left = room;
      await refused(
        writeModel(
          path,
          {
            config,
            async write(handle, bytes, at) {
              const some = bytes.subarray(0, left);
              left -= some.byteLength;
              await writeAt(handle, some, at);
              if (some.byteLength < bytes.byteLength)
                throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
            },
          },
          weights,
        ),
        "model: the disk is full; nothing was changed; make room or write elsewhere",
      );
      expect(readdirSync(path).map((name) => [name, readFileSync(join(path, name), "utf8")])).toEqual(before);
      expect(readdirSync(folder)).toEqual(["model"]);
    }
  });

  test.skipIf(process.platform === "win32")(
    "a pipe that nobody writes to is refused, not waited for",
    async () => {
      const pipe = join(folder, "pipe.bin");
      execFileSync("mkfifo", [pipe]);
      await refused(openModel(pipe), "pipe.bin: needs a file, met something else");
      await refused(openTokenizer(pipe), "pipe.bin: needs a file, met something else");
    },
  );

  test("a model that is not there by any name", async () => {
    await refused(openModel("bundled:nothing"), "bundled:nothing: no such bundled model; ");
    writeFileSync(join(folder, "x.gguf"), "GGUF");
    await refused(openModel(join(folder, "x.gguf")), "x.gguf: truncated in its version");
    writeFileSync(join(folder, "x.safetensors"), "");
    await refused(
      openModel(join(folder, "x.safetensors")),
      "give the folder that holds them with config.json",
    );
  });
});

describe("llama2.c", () => {
  const open = (bytes: Uint8Array) => openLlama2c(memorySource(bytes, "bad.bin"));
  const header = (version: number, numbers: number[], group = 0) => {
    const bytes = new Uint8Array(256);
    const view = new DataView(bytes.buffer);
    for (const [i, n] of [0x616b3432, version, ...numbers].entries()) view.setInt32(4 * i, n, true);
    view.setUint8(36, 1);
    view.setInt32(37, group, true);
    return bytes;
  };
  const legacy = (numbers: number[]) => new Uint8Array(Int32Array.from(numbers).buffer);

  test("truncated file", async () => {
    await refused(
      open(new Uint8Array(27)),
      "bad.bin: truncated: a llama2.c header has 28 bytes, the file 27",
    );
    await refused(
      open(header(1, [4, 4, 1, 1, 1, 2, 2]).subarray(0, 100)),
      "truncated: a header has 256 bytes, the file 100",
    );
    await refused(
      open(header(1, [4, 4, 1, 1, 1, 2, 2])),
      "truncated: its header asks for 784 bytes, the file has 256",
    );
  });

  test("wrong magic and legacy headers that cannot be", async () => {
    await refused(open(new TextEncoder().encode("this is a text, and no model at all")), "bad.bin: ");
    await refused(
      open(legacy([0, 4, 1, 1, 1, 2, 2])),
      "neither the magic ak42 nor a legacy header): dim is 0",
    );
    await refused(open(legacy([6, 4, 1, 4, 1, 2, 2])), "4 heads do not divide dim 6 into even heads");
    await refused(open(legacy([8, 4, 1, 4, 3, 2, 2])), "3 kv heads do not divide 4 heads");
    await refused(
      open(header(3, [4, 4, 1, 1, 1, 2, 2])),
      "llama2.c version 3; versions 1 and 2 and the legacy form are known",
    );
  });

  test("sizes far beyond the file are refused before anything of them is made", async () => {
    const most = 2 ** 31 - 1;
    await refused(open(legacy([2, most, most, 1, 1, most, most])), "bad.bin: ");
    await refused(open(legacy([2 ** 30, 4, 1, 1, 1, 2, 2])), "truncated: its header asks for ");
  });

  test("bytes left over", async () => {
    const bytes = new Uint8Array(785);
    bytes.set(header(1, [4, 4, 1, 1, 1, 2, 2]));
    await refused(
      open(bytes),
      "asks for 784 bytes, the file has 785; not a llama2.c checkpoint of this shape",
    );
  });

  test("int8 groups that do not divide a matrix", async () => {
    await refused(
      open(header(2, [4, 4, 1, 1, 1, 2, 2], 3)),
      "bad header: group size 3 does not divide a matrix of 8 values",
    );
    await refused(open(header(2, [4, 4, 1, 1, 1, 2, 2], 0)), "bad header: group size 0 ");
    await refused(open(header(2, [4, 4, 1, 1, 1, 2, 2], -1)), "bad header: group size -1 ");
  });
});

describe("tokenizers", () => {
  test("a file that is no tokenizer, by each of its names", async () => {
    const write = (name: string, text: string) => {
      writeFileSync(join(folder, name), text);
      return openTokenizer(join(folder, name));
    };
    await refused(write("tokenizer.json", '{"model": '), "tokenizer.json: not a JSON object; truncated?");
    await refused(
      write("tokenizer.json", "{}"),
      'tokenizer.json: not a Hugging Face tokenizer: it has no "model"',
    );
    await refused(write("tok.model", "no protobuf"), "tok.model: not a SentencePiece model");
    await refused(write("tok.bin", "no tokenizer"), "tok.bin: not a llama2.c tokenizer");
    await refused(
      write("tok.txt", ""),
      "needs a tokenizer.json, a SentencePiece .model, a llama2.c tok*.bin or a .gguf",
    );
    for (const damage of [
      { model: { vocab: null } },
      { model: { vocab: { a: -1 } } },
      { model: { vocab: { a: 2 ** 40 } } },
      { model: { vocab: [1] } },
      { model: { vocab: { a: 0 } }, added_tokens: { id: 1 } },
      { model: { vocab: { a: 0 } }, added_tokens: [{ id: 1 }] },
    ]) {
      const data = await write("tokenizer.json", JSON.stringify(damage));
      await refused(() => tokenizerFrom(data), "tokenizer.json: needs ");
    }
    await refused(openTokenizer(join(folder, "absent.model")), "absent.model: no such file or folder");
  });

  test.skipIf(!existsSync(shared("stories260k")))("tok512.bin cut anywhere in its last token", async () => {
    const bytes = readFileSync(shared("stories260k/tok512.bin"));
    for (const cut of [1, 2, 5]) {
      writeFileSync(join(folder, "tok.bin"), bytes.subarray(0, bytes.length - cut));
      await refused(openTokenizer(join(folder, "tok.bin")), "tok.bin: ");
    }
  });
});

test.skipIf(!existsSync(shared("format-samples")))("real files cut at many places", async () => {
  for (const name of [
    "nutllm_tiny.safetensors",
    "wi_tiny.safetensors",
    "nutllm_tiny-llama2.bin",
    "nutllm_tiny-llama2-shared.bin",
  ]) {
    const bytes = new Uint8Array(readFileSync(shared("format-samples", name)));
    for (let length = 0; length < bytes.length; length += 1 + Math.floor(bytes.length / 50)) {
      const file = memorySource(bytes.subarray(0, length), name);
      await refused(name.endsWith(".bin") ? openLlama2c(file) : readHeader(file), `${name}: `);
    }
  }
});
