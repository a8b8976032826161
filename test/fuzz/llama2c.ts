import { checkTensors, memorySource } from "../../src/files/index.ts";
import { openLlama2c } from "../../src/files/llama2c.ts";
import { describe } from "../../src/models/index.ts";
import { naming } from "../../src/tensor/tensor.ts";
import { Writer } from "./damage.ts";
import { randomBytes, readEvery } from "./safetensors.ts";
import { fileOf, type Target } from "./target.ts";

export const llama2c: Target = {
  name: "llama2c",
  begins: /^fuzz\.bin: /,
  make(d) {
    const version = d.pick([0, 1, 2]);
    const kvHeads = d.whole(1, 2);
    const heads = kvHeads * d.whole(1, 2);
    const dim = heads * 2 * d.whole(1, 2);
    const [hidden, layers, vocabulary, context] = [
      2 * d.whole(1, 4),
      d.whole(1, 2),
      d.whole(1, 6),
      d.whole(1, 4),
    ];
    const shared = d.chance(0.5);
    const out = new Writer();
    if (version > 0) out.u32(d.number(0x616b3432)).u32(d.number(version));
    const signed = version === 0 && !shared ? -vocabulary : vocabulary;
    for (const n of [dim, hidden, layers, heads, kvHeads, signed, context]) out.u32(d.number(n));
    if (version > 0) out.u8(shared ? 1 : 0);
    if (version === 2) out.u32(d.number(2));
    if (version > 0) out.raw(new Uint8Array(256 - out.length));

    const kv = (dim / heads) * kvHeads;
    const perLayer = dim * (2 * dim + 2 * kv + 3 * hidden);
    const matrices = layers * perLayer + vocabulary * dim * (shared ? 1 : 2);
    const norms = (2 * layers + 1) * dim;
    const rope = version === 0 ? (context * dim) / heads : 0;
    const bytes = version === 2 ? 4 * norms + matrices + 2 * matrices : 4 * (matrices + norms + rope);
    return d.bytes(out.raw(randomBytes(d, bytes)).bytes(), out.marks);
  },
  async read(made) {
    const { source, config } = await openLlama2c(memorySource(fileOf(made), "fuzz.bin"));
    checkTensors("fuzz.bin", source, naming("fuzz.bin", () => describe(config)).tensors);
    await readEvery("fuzz.bin", source);
  },
};
