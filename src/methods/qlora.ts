import { z } from "zod";
import { codeBitsFor, packCodes } from "../formats/codebook.ts";
import { checkGroup } from "../formats/format.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { type NormalFloatBits, nearestLevel, normalFloatLevels } from "../formats/normal-float.ts";
import { seedOf } from "../tensor/random.ts";
import { checkRank } from "./low-rank.ts";
import type { Decomposition, TunedMethod } from "./method.ts";
import { adapterKeys, tunable, tunedParts, withAdapter } from "./tunable.ts";

const paper = "Dettmers et al., 2023 (https://arxiv.org/abs/2305.14314)";

const baseOptions = z.strictObject({
  /** Bits of a code: 4, 3 or 2. */
  bits: z.literal([2, 3, 4]).default(4),
  /** Weights that share a scale. */
  group: z.int().min(1).default(64),
});

/**
 * QLoRA's base: NormalFloat with double quantization. Scales of groups, max|w|, are themselves 8-bit numbers, 256 of
 * which share a step and an offset (formats/affine8.ts); the codes are chosen for the scales that storage keeps.
 *
 *   Ŵ_rc = s_rg·l_k,  bits per weight = B + 8.125/group: 4.127 for 4 bits in groups of 64
 *
 * Dettmers et al., 2023 (https://arxiv.org/abs/2305.14314), section 3. Their 8-bit numbers are the dynamic map of
 * bitsandbytes around the mean of all scales, with a float32 for each block; ours are an even grid, of as many bits.
 * With fp16 scales the same levels are a format: nf4-g64.
 */
export const qloraBase: Decomposition<z.infer<typeof baseOptions>> = {
  kind: "decomposition",
  name: "qlora",
  paper,
  calibrated: false,
  options: baseOptions,
  check({ cols }, { group }) {
    checkGroup("qlora", cols, group);
  },
  async decompose({ rows, cols, data }, _context, { bits, group }) {
    const levels = normalFloatLevels(bits as NormalFloatBits);
    const groups = cols / group;
    const largest = Float32Array.from({ length: rows * groups }, (_, g) =>
      data.subarray(g * group, (g + 1) * group).reduce((most, w) => Math.max(most, Math.abs(w)), 0),
    );
    const scales = encodeWeight(formatByName("affine8"), [rows, groups], largest);
    const stored = decodeWeight(scales).data;
    const zero = levels.indexOf(0);
    const codes = Uint8Array.from(data, (w, i) => {
      const s = stored[Math.floor(i / group)];
      return s > 0 ? nearestLevel(levels, w / s) : zero;
    });
    const codeBits = codeBitsFor(levels.length);
    const book = encodeWeight(formatByName("f32"), [levels.length, 1], levels);
    const of = {
      shape: [rows, cols],
      expression: { kind: "codebook", codes: packCodes(codes, rows, cols, codeBits), codeBits, book },
    } as const;
    return { shape: [rows, cols], expression: { kind: "scaleGroups", scales, of } };
  },
};

const options = z
  .strictObject({
    /** What moves, where a matrix has it. */
    parts: z.array(z.enum(tunedParts)).min(1).default(["lowRank", "magnitudes"]),
    ...adapterKeys,
    /** Of a low-rank part that is added to every matrix; 0 moves what is there alone. Default: 16 where `lowRank` moves. */
    rank: z.int().min(0).optional(),
  })
  .prefault({});

/** As one adapter of a matrix, when nothing else is told. */
const RANK = 16;

/**
 * Adapters over a base that stays packed and frozen, whatever it is stored as.
 *
 *   y = x·Ŵᵀ + (x·Bᵀ)·Aᵀ,  A 0 and B normal with deviation 1/√cols at the start;  with magnitudes each row times its own
 *
 * The gradient of x goes through Ŵ, which is decoded when a product needs it, in both directions, and never kept: one
 * matrix at most is whole at a time. `parts` may name more of the base's own parts (`scales`, `codebooks`); these are
 * looked up as whole matrices that the backward pass needs (recompute: true keeps those of one block).
 *
 * Dettmers et al., 2023 (https://arxiv.org/abs/2305.14314), section 3, with a 4-bit NormalFloat base; Yin et al., 2023,
 * ModuLoRA (https://arxiv.org/abs/2309.16119), with the base of any quantizer; Chai et al., 2023, INT2.1
 * (https://arxiv.org/abs/2306.08162), where the float model teaches what the rounding lost; magnitudes as DoRA (tunable.ts).
 * Their factor α/rank is the rate here; their pages of optimizer states are not needed where only adapters have states.
 */
export const qlora: TunedMethod<z.infer<typeof options>> = {
  name: "qlora",
  paper,
  options,
  with: ({ parts, rank = parts.includes("lowRank") ? RANK : 0, ...adapter }) => ({
    kind: "tuning",
    name: "qlora",
    paper,
    tuned(weight, name) {
      const [rows, cols] = weight.shape;
      checkRank("tuning", { rows, cols }, rank);
      const seed = seedOf(name, adapter.seed); // each matrix draws its own
      return tunable(withAdapter(weight, { ...adapter, rank, seed }), new Set(parts));
    },
  }),
};
