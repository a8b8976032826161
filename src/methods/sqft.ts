import { z } from "zod";
import { numbersOf } from "../formats/compose-weight.ts";
import { type GroupFormat, storeF16 } from "../formats/format.ts";
import { formatByName } from "../formats/index.ts";
import { generator, normals, seedOf } from "../tensor/random.ts";
import { hostTensor, InputError } from "../tensor/tensor.ts";
import { describeWeight, packedWeight, type Weight } from "../tensor/weight.ts";
import { checkRank } from "./low-rank.ts";
import type { Decomposition, Tuned, TunedMethod } from "./method.ts";

const paper = "Munoz et al., 2024 (https://arxiv.org/abs/2410.03750)";

const options = z
  .strictObject({
    rank: z.int().min(1).default(16),
    /** What is 0 in the base stays 0. */
    sparse: z.boolean().default(false),
    seed: z.int().default(0),
  })
  .prefault({});

/**
 * Adapters that end up in the codes: training sees the base and its adapter merged and rounded to the base's own grid, so
 * that the merged model is in the base's format, with its scales, its size and its zeros, and computes what was trained.
 *
 *   Ŵ = snap(W + A·Bᵀ),  A 0 and B normal with deviation 1/√cols at the start;  dA and dB straight through
 *
 * `snap` (kernels/snap.ts) takes the nearest value that the group's scale and offset give. Munoz et al., 2024, SQFT
 * (https://arxiv.org/abs/2410.03750), its
 * QA-SparsePEFT. Codes are whole numbers while training: 4 bytes a
 * weight, and the rounded matrices of all blocks unless the recipe says recompute.
 */
export const sqft: TunedMethod<z.infer<typeof options>> = {
  name: "sqft",
  paper,
  options,
  with: (chosen) => ({
    kind: "tuning",
    name: "sqft",
    paper,
    tuned: (weight, name) => merged(weight, name, chosen),
  }),
};

function merged(weight: Weight, name: string, { rank, sparse, seed }: z.infer<typeof options>): Tuned {
  const [rows, cols] = weight.shape;
  checkRank("tuning", { rows, cols }, rank);
  const { format, scales, codes, parameters } = gridOf(weight, name);
  const groups = parameters.length / rows;
  const b = normals(generator(seedOf(name, seed)), cols * rank).map((x) => x / Math.sqrt(cols));
  const levels = Float32Array.from({ length: format.codeCount }, (_, code) =>
    format.value(code, { scale: 1, offset: 0 }),
  );
  const tuned: Tuned = {
    parameters: new Map([
      ["a", hostTensor([rows, rank], new Float32Array(rows * rank))],
      ["b", hostTensor([cols, rank], b)],
    ]),

    open(backend) {
      const keep = (shape: readonly number[], data: Float32Array | Int32Array) =>
        backend.keep(backend.upload(hostTensor(shape, data)));
      const grid = [
        keep([rows, cols], Int32Array.from(codes)),
        keep([levels.length], levels),
        keep([rows, groups], scales),
        keep(
          [rows, groups],
          Float32Array.from(parameters, ({ offset }) => offset),
        ),
      ] as const;
      return {
        kept: new Set(grid),
        tensor: (ops, values) =>
          ops.snap(ops.linear(values.get("a")!, values.get("b")!), ...grid, sparse ? 1 : 0),
        free() {
          for (const t of grid) backend.free(t);
        },
      };
    },

    async stored(values, backend) {
      const opened = tuned.open(backend);
      const seen = backend.scope(() => {
        const upload = (path: string) =>
          backend.upload(hostTensor(tuned.parameters.get(path)!.shape, values.get(path)!));
        return opened.tensor(backend, new Map(["a", "b"].map((path) => [path, upload(path)])));
      });
      opened.free();
      const data = await backend.read(seen);
      backend.free(seen);
      const width = cols / groups;
      const chosen = Uint8Array.from(data, (w, at) => {
        const own = parameters[Math.floor(at / width)];
        return format.value(codes[at], own) === w ? codes[at] : format.nearest(w, own);
      });
      return packedWeight(weight.shape, format.name, format.pack({ codes: chosen, parameters }, rows, cols));
    },
  };
  return tuned;
}

const mergeOptions = z.strictObject({
  /** What is 0 in the base stays 0. */
  sparse: z.boolean().default(false),
});

/**
 * The merge alone, of adapters that were learned without it: a base of codes, what is added to it and what its rows are
 * multiplied by become codes on the base's grid, m_r·(W + A·B) on the scales m_r·s. What that loses is in the record of
 * each matrix. Without adapters a matrix stays as it is.
 */
export const sqftMerge: Decomposition<z.infer<typeof mergeOptions>> = {
  kind: "decomposition",
  name: "sqft",
  paper,
  calibrated: false,
  options: mergeOptions,
  check() {},
  async decompose(W, { name = "the matrix", stored }, { sparse }) {
    const { base, rows } = baseOf(await stored!());
    const { format, codes, parameters } = gridOf(base, name);
    const width = codes.length / parameters.length;
    const scaled = parameters.map(({ scale, offset }, g) => {
      const m = rows[Math.floor((g * width) / W.cols)] ?? 1;
      return {
        scale: storeF16(format.name, "scale", m * scale),
        offset: storeF16(format.name, "offset", m * offset),
      };
    });
    const merged = Uint8Array.from(codes, (code, at) => {
      const g = Math.floor(at / width);
      if (sparse && format.value(code, parameters[g]) === 0) return code;
      return format.nearest(W.data[at], scaled[g]);
    });
    const parts = format.pack({ codes: merged, parameters: scaled }, W.rows, W.cols);
    return packedWeight(base.shape, format.name, parts);
  },
};

/** What adapters stand on, and the numbers by which its rows are multiplied, where there are any. */
function baseOf(weight: Weight): { base: Weight; rows: readonly number[] } {
  const { expression: e } = weight;
  if (e.kind === "sum") return baseOf(e.terms[0]);
  if (e.kind !== "scaleRows") return { base: weight, rows: [] };
  const { base, rows } = baseOf(e.of);
  return { base, rows: Array.from(numbersOf(e.scales), (m, r) => m * (rows[r] ?? 1)) };
}

/** Codes of a matrix, and the scale and offset of each group of a row. */
function gridOf({ shape, expression: e }: Weight, name: string) {
  const format = e.kind === "packed" ? formatByName(e.format) : undefined;
  const coded =
    e.kind === "packed" && format?.kind === "group" && ["row", "group"].includes(format.groupShape.kind)
      ? format.unpack(e.parts, shape[0], shape[1])
      : undefined;
  if (!coded) {
    throw new InputError(
      `sqft: ${name} is stored as ${describeWeight({ shape, expression: e })}; needs codes and scales of groups, like int4-g64 or nf4-g64`,
    );
  }
  const scales = Float32Array.from(coded.parameters, ({ scale }) => scale);
  return { format: format as GroupFormat, scales, ...coded };
}
