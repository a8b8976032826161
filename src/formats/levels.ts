import type { Parts } from "../tensor/weight.ts";
import { type Format, type GroupFormat, groupSize } from "./format.ts";

/** A matrix as levels and scales: weight = scale·(byte − 128) + offset, in float32. */
export interface LevelBytes {
  /** (rows, cols) */
  readonly codes: Uint8Array;
  /** (rows, cols/group), as are the offsets; without offsets nothing is added. */
  readonly scales: Float32Array;
  readonly offsets?: Float32Array;
  readonly group: number;
}

/** Groups of weights that kernels can tell apart: whole multiples of this, or whole rows. */
const STEP = 32;

/** Sums of more products of codes, sub-scales and bytes could leave 32 bits; ggml's largest blocks are as long. */
const MOST_ACTIVATIONS = 256;

/** The level of every code, value = scale·level + offset, where all are whole numbers in −128 … 127. */
function wholeLevels(format: Format): Int8Array | undefined {
  if (
    format.kind !== "group" ||
    format.groupShape.kind === "superblock" ||
    format.groupShape.kind === "vector"
  ) {
    return undefined;
  }
  const levels = Array.from({ length: format.codeCount }, (_, code) =>
    format.value(code, { scale: 1, offset: 0 }),
  );
  const whole = levels.every((level) => Number.isInteger(level) && -128 <= level && level <= 127);
  return whole ? Int8Array.from(levels) : undefined;
}

/**
 * Activations that share a scale when they are rounded to bytes: those that meet one group of the format's weights, 256
 * at most. 0 for formats whose levels are no whole numbers: their activations stay float32.
 */
export function activationGroup(format: Format): number {
  if (format.groupShape.kind === "superblock") return MOST_ACTIVATIONS;
  if (wholeLevels(format) === undefined) return 0;
  if (format.groupShape.kind !== "group") return MOST_ACTIVATIONS;
  const { size } = format.groupShape;
  if (size % STEP !== 0) return 0;
  if (size <= MOST_ACTIVATIONS) return size;
  // The longest run that divides a longer group and can be kept together.
  let group = MOST_ACTIVATIONS;
  while (size % group !== 0) group -= STEP;
  return group;
}

/**
 * The form in which kernels take a format that they do not know by name; undefined where levels are not whole numbers,
 * groups not multiples of 32, or values not exactly f32(f32(scale·level) + offset).
 */
export function levelBytes(format: Format, parts: Parts, rows: number, cols: number): LevelBytes | undefined {
  const levels = wholeLevels(format);
  if (levels === undefined || format.kind !== "group") return undefined;
  const size = groupSize(format, rows, cols);
  const group = Math.min(size, cols);
  if (group !== cols && group % STEP !== 0) return undefined;
  const { codes, parameters } = format.unpack(parts, rows, cols);
  if (!parameters.every((one) => areScaledLevels(format, levels, one.scale, one.offset))) return undefined;

  const groups = group === 0 ? 0 : (rows * cols) / group;
  const own = (g: number) => parameters[Math.floor((g * group) / size)];
  const scales = Float32Array.from({ length: groups }, (_, g) => own(g).scale);
  const offsets = Float32Array.from({ length: groups }, (_, g) => own(g).offset);
  return {
    codes: codes.map((code) => levels[code] + 128),
    scales,
    ...(offsets.some((offset) => offset !== 0) && { offsets }),
    group,
  };
}

function areScaledLevels(format: GroupFormat, levels: Int8Array, scale: number, offset: number): boolean {
  return levels.every(
    (level, code) =>
      format.value(code, { scale, offset }) === Math.fround(Math.fround(scale * level) + offset),
  );
}
