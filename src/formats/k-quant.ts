import { type CodedGroup, type GroupFormat, type Parameters, storeF16 } from "./format.ts";
import { ggmlFormat } from "./ggml-block.ts";
import { limited, rounded } from "./ggml-search.ts";

/** Weights of a superblock. */
export const SUPERBLOCK = 256;

const f = Math.fround;

/**
 * Parameters of a superblock, with the whole numbers that the file keeps of each subgroup g:
 * scale of g = scale·sub[g], offset of g = offset·subOffset[g], both exact.
 */
export interface Superblock extends Parameters {
  readonly sub: Int8Array;
  readonly subOffset: Uint8Array;
  readonly subgroups: readonly Parameters[];
}

/** What sets one K-quant apart. */
export interface KQuant {
  readonly name: string;
  /** ggml's function that reads it. */
  readonly source: string;
  readonly codeBits: number;
  readonly subgroups: 8 | 16;
  /** Whether subgroups have offsets; without, the level of code c is c − middle. */
  readonly offsets: boolean;
  readonly middle: number;
  /** Largest |sub|. */
  readonly subTop: number;
  /** Bytes of a superblock. */
  readonly bytes: number;
  /**
   * ggml's choice of parameters for x (256, float32 numbers), and the codes of the last search, which stand where a
   * subgroup's scale comes to 0.
   */
  fit(x: Float64Array, importance: Float32Array | undefined, codes: Float64Array): Superblock;
  /** Writes codes (256) and parameters into the bytes of a superblock, which are 0. */
  write(codes: Uint8Array, parameters: Superblock, bytes: Uint8Array, view: DataView): void;
  read(bytes: Uint8Array, view: DataView, codes: Uint8Array): Superblock;
}

/**
 * A K-quant of ggml: superblocks of 256 weights whose 8 or 16 subgroups have whole numbers as scales, and as offsets
 * where there are any, in units of an fp16 scale and an fp16 offset of the superblock.
 *
 *   value = scale·sub[g]·code + offset·subOffset[g]   the products exact, one rounding to float32
 *   value = scale·sub[g]·(code − middle)             without offsets, exact in float32
 *
 * `quantizeGroup` is ggml's own rounding: quantize_row_…_ref, or with importance quantize_row_…_impl, in the float32
 * steps of ggml-search.ts. `fitGroup` gives its parameters.
 */
export function kQuant(own: KQuant): GroupFormat {
  const { name, codeBits, subgroups, middle, subTop, bytes } = own;
  const top = 2 ** codeBits - 1;
  const size = SUPERBLOCK / subgroups;
  const x = new Float64Array(SUPERBLOCK);
  const searched = new Float64Array(SUPERBLOCK);

  function quantizeGroup(w: Float32Array, importance?: Float32Array): CodedGroup {
    let largest = 0;
    for (let i = 0; i < SUPERBLOCK; i++) {
      x[i] = w[i];
      largest = Math.max(largest, Math.abs(w[i]));
    }
    storeF16(name, "scale", largest / (top * subTop)); // refuses what the searches cannot take
    const parameters = own.fit(x, importance, searched);
    const codes = Uint8Array.from(searched);
    for (let g = 0; g < subgroups; g++) {
      const { scale, offset } = parameters.subgroups[g];
      if (scale === 0) continue;
      for (let i = g * size; i < (g + 1) * size; i++) codes[i] = nearestCode(x[i], scale, offset);
    }
    return { codes, parameters };
  }

  function nearestCode(w: number, scale: number, offset: number): number {
    return limited(rounded(f(f(w - offset) / scale)) + middle, 0, top);
  }

  return ggmlFormat({
    name,
    spec: `https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (${own.source})`,
    codeBits,
    codeCount: top + 1,
    size: SUPERBLOCK,
    subgroups,
    bytes,
    quantizeGroup,
    fitGroup: (w, importance) => quantizeGroup(w, importance).parameters,

    nearest(w, parameters, index = 0) {
      const { scale, offset } = parameters.subgroups![Math.floor(index / size)];
      return scale === 0 ? 0 : nearestCode(w, scale, offset);
    },

    value: own.offsets
      ? (code, parameters, index = 0) => {
          const { scale, offset } = parameters.subgroups![Math.floor(index / size)];
          return f(scale * code + offset);
        }
      : (code, parameters, index = 0) =>
          parameters.subgroups![Math.floor(index / size)].scale * (code - middle),

    // All parameters that this format gives out are made by `superblock` below.
    write: (codes, parameters, block) => own.write(codes, parameters as Superblock, bytesOf(block), block),
    read: (block, codes) => own.read(bytesOf(block), block, codes),
  });
}

/** Parameters of a superblock from what the file keeps. */
export function superblock(
  scale: number,
  offset: number,
  sub: Int8Array,
  subOffset: Uint8Array = new Uint8Array(sub.length),
): Superblock {
  const subgroups = Array.from(sub, (s, g) => ({ scale: scale * s, offset: offset * subOffset[g] }));
  return { scale, offset, sub, subOffset, subgroups };
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
