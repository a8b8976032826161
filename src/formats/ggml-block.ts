import { checkGroup, type GroupFormat, type Parameters, partOf } from "./format.ts";

/**
 * What one ggml block format has of its own: sizes, how a block becomes bytes,
 * and the numbers (fitGroup, nearest, value, quantizeGroup …) of a GroupFormat.
 */
export interface BlockFormat
  extends Omit<GroupFormat, "kind" | "stem" | "groupShape" | "parts" | "pack" | "unpack"> {
  /** Weights of a block: a group, or a superblock when there are `subgroups` in it. */
  readonly size: number;
  readonly subgroups?: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Writes the codes (size) and parameters of a block into its bytes, which are 0. */
  write(codes: Uint8Array, parameters: Parameters, block: DataView): void;
  /** Reads a block: its codes into `codes` (size), its parameters as the result. */
  read(block: DataView, codes: Uint8Array): Parameters;
}

/**
 * A format of ggml: every row is blocks of `size` weights, one after another,
 * in one part, `codes` u8 (rows, bytes·cols/size), which is what a GGUF file
 * has, so that its tensors run in place. All numbers are little-endian.
 */
export function ggmlFormat(own: BlockFormat): GroupFormat {
  const { size, subgroups, bytes: blockBytes, write, read, ...numbers } = own;
  let found: readonly number[] | undefined;
  const places = () => (found ??= halfPlaces(own));
  const parts: GroupFormat["parts"] = (rows, cols) => {
    checkGroup(own.name, cols, size);
    return [{ name: "codes", dtype: "u8", shape: [rows, (cols / size) * blockBytes] }];
  };
  return {
    ...numbers,
    kind: "group",
    stem: own.name,
    groupShape: subgroups ? { kind: "superblock", size, subgroups } : { kind: "group", size },
    parts,

    pack({ codes, parameters }, rows, cols) {
      const [{ shape }] = parts(rows, cols);
      const bytes = new Uint8Array(rows * shape[1]);
      for (const [b, group] of parameters.entries()) {
        write(codes.subarray(b * size, (b + 1) * size), group, viewOf(bytes, b * blockBytes, blockBytes));
      }
      return { codes: partOf("u8", shape, bytes) };
    },

    unpack({ codes: { bytes } }, rows, cols) {
      const codes = new Uint8Array(rows * cols);
      const parameters: Parameters[] = [];
      for (let b = 0; b < codes.length / size; b++) {
        const block = viewOf(bytes, b * blockBytes, blockBytes);
        parameters.push(read(block, codes.subarray(b * size, (b + 1) * size)));
      }
      return { codes, parameters };
    },

    firstNotFinite({ codes: { bytes } }) {
      let end = bytes.byteLength;
      for (const place of places()) {
        let at = place + 1; // the byte of its sign and exponent
        while (at < end && (bytes[at] & 0x7c) !== 0x7c) at += blockBytes;
        end = Math.min(end, at);
      }
      return end === bytes.byteLength ? -1 : Math.floor(end / blockBytes);
    },
  };
}

/** Where a block has its fp16 numbers: where NaN in a block of zeros makes a parameter NaN. */
function halfPlaces({ size, bytes, read }: BlockFormat): number[] {
  const codes = new Uint8Array(size);
  const places: number[] = [];
  for (let at = 0; at + 2 <= bytes; at++) {
    const block = new DataView(new ArrayBuffer(bytes));
    block.setFloat16(at, Number.NaN, true);
    const { scale, offset } = read(block, codes);
    if (Number.isNaN(scale) || Number.isNaN(offset)) places.push(at);
  }
  return places;
}

function viewOf(bytes: Uint8Array, at: number, length: number): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset + at, length);
}
