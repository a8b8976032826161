import { InputError, type Matrix, matrix, row } from "../tensor/tensor.ts";
import { gelu } from "./gelu.ts";

/** A layer as `DecoderLayer` has it (tensor/weight.ts), with whatever stands for its numbers. */
interface Layer<Numbers> {
  readonly kernel: number;
  readonly stride: number;
  readonly weights: Numbers;
  readonly biases: Numbers;
}

/** What a layer works on: images (side, side, channels) -> (stride·side, stride·side, out). */
export interface LayerSizes {
  readonly side: number;
  readonly channels: number;
  readonly kernel: number;
  readonly stride: number;
  readonly out: number;
}

/** A decoder is a handful of layers; what files may have. */
export const MOST_LAYERS = 16;
const WIDEST_KERNEL = 15;
/**
 * The most that strides may come to: each stored value of a latent then stands for 64² weights at most, so that a small
 * file cannot ask for a matrix without bounds.
 */
const MOST_UPSCALING = 64;
/** The most floats that the layers may make of the patches on one column of them: a gigabyte. */
const MOST_FLOATS = 2 ** 28;

/**
 * The sizes of a decoder's layers. Throws an InputError, beginning with `where`, when its parts do not fit one another
 * or the matrix, or what it works on is beyond the limits above; nothing has been allocated by then.
 */
export function decoderSizes(
  where: string,
  [rows, cols]: readonly number[],
  patch: number,
  latent: { readonly shape: readonly number[] },
  layers: readonly Layer<{ readonly shape: readonly number[] }>[],
): LayerSizes[] {
  const refuse = (what: string) => new InputError(`${where}: ${what}`);
  checkPatch(where, { rows, cols }, patch);
  if (layers.length === 0 || layers.length > MOST_LAYERS)
    throw refuse(`a decoder has 1 to ${MOST_LAYERS} layers, met ${layers.length}`);
  for (const [i, { kernel, stride }] of layers.entries()) {
    if (!isSize(kernel) || kernel % 2 === 0 || kernel > WIDEST_KERNEL)
      throw refuse(
        `the kernel of layer ${i} must be an odd number up to ${WIDEST_KERNEL}, is ${JSON.stringify(kernel)}`,
      );
    if (!isSize(stride))
      throw refuse(`the stride of layer ${i} must be a size, is ${JSON.stringify(stride)}`);
  }
  const upscaling = layers.reduce((product, { stride }) => product * stride, 1);
  if (upscaling > MOST_UPSCALING || patch % upscaling !== 0) {
    throw refuse(
      `strides that come to ${upscaling} must divide a patch of ${patch}, and be ${MOST_UPSCALING} at most`,
    );
  }
  const patches = (rows * cols) / patch ** 2;
  const [images, values] = latent.shape;
  let side = patch / upscaling;
  let channels = values / side ** 2;
  if (latent.shape.length !== 2 || images !== patches || !isSize(channels)) {
    throw refuse(
      `the latent must be ${patches} images of ${side}×${side}, has shape ${latent.shape.join("×")}`,
    );
  }
  return layers.map(({ kernel, stride, weights, biases }, i) => {
    const [made, taken] = weights.shape;
    const out = made / stride ** 2;
    const isLast = i === layers.length - 1;
    if (
      weights.shape.length !== 2 ||
      taken !== kernel ** 2 * channels ||
      !isSize(out) ||
      (isLast && out !== 1)
    ) {
      throw refuse(
        `the weights of layer ${i} must be ${isLast ? stride ** 2 : `${stride ** 2}·n`}×${kernel ** 2 * channels}, are ${weights.shape.join("×")}`,
      );
    }
    if (biases.shape.join() !== `1,${made}`)
      throw refuse(`the biases of layer ${i} must be 1×${made}, are ${biases.shape.join("×")}`);
    if ((rows / patch) * side ** 2 * Math.max(made, taken) > MOST_FLOATS) {
      throw refuse(
        `layer ${i} would make more than ${MOST_FLOATS} numbers of ${rows / patch} patches of ${patch}; take fewer channels or smaller kernels`,
      );
    }
    const sizes = { side, channels, kernel, stride, out };
    side *= stride;
    channels = out;
    return sizes;
  });
}

/** Throws an InputError that names sizes which work unless patches fill the matrix. */
export function checkPatch(
  where: string,
  { rows, cols }: { readonly rows: number; readonly cols: number },
  patch: number,
): void {
  if (isSize(patch) && rows % patch === 0 && cols % patch === 0) return;
  const fitting = [];
  for (let size = 1; size <= Math.min(rows, cols); size++)
    if (rows % size === 0 && cols % size === 0) fitting.push(size);
  throw new InputError(
    `${where}: patches of ${JSON.stringify(patch)} do not fill ${rows}×${cols}; take ${fitting.slice(-6).join(", ")}`,
  );
}

/** The matrix that layers draw from latent images (patches, side·side·channels). Sums are in 64 bits, and each layer's result is rounded. */
export function drawPatches(
  rows: number,
  cols: number,
  patch: number,
  latent: Matrix,
  layers: readonly Layer<Matrix>[],
): Matrix {
  const shaped = ({ rows, cols }: Matrix) => ({ shape: [rows, cols] });
  const sizes = decoderSizes(
    "weight",
    [rows, cols],
    patch,
    shaped(latent),
    layers.map((layer) => ({ ...layer, weights: shaped(layer.weights), biases: shaped(layer.biases) })),
  );
  const result = matrix(rows, cols);
  for (let image = 0; image < latent.rows; image++) {
    let x = row(latent, image);
    for (const [i, { weights, biases }] of layers.entries()) {
      x = drawn(x, sizes[i], weights, biases);
      if (i < layers.length - 1) x = x.map(gelu);
    }
    const [down, right] = [image % (rows / patch), Math.floor(image / (rows / patch))];
    for (let r = 0; r < patch; r++)
      row(result, down * patch + r).set(x.subarray(r * patch, (r + 1) * patch), right * patch);
  }
  return result;
}

/** x (side, side, channels) -> y (stride·side, stride·side, out) */
function drawn(
  x: Float32Array,
  { side, channels, kernel, stride, out }: LayerSizes,
  weights: Matrix,
  biases: Matrix,
): Float32Array {
  const y = new Float32Array((stride * side) ** 2 * out);
  const around = new Float64Array(kernel ** 2 * channels);
  const sums = new Float64Array(4 * Math.ceil(weights.rows / 4));
  const middle = (kernel - 1) / 2;
  for (let r = 0; r < side; r++) {
    for (let c = 0; c < side; c++) {
      sums.set(biases.data);
      let to = 0;
      for (let i = r - middle; i <= r + middle; i++) {
        for (let j = c - middle; j <= c + middle; j++) {
          const inside = i >= 0 && i < side && j >= 0 && j < side;
          for (let k = 0; k < channels; k++) around[to++] = inside ? x[(i * side + j) * channels + k] : 0;
        }
      }
      addProducts(sums, weights, around);
      for (let o = 0; o < weights.rows; o++) {
        const square = Math.floor(o / out);
        const [i, j] = [r * stride + Math.floor(square / stride), c * stride + (square % stride)];
        y[(i * stride * side + j) * out + (o % out)] = sums[o];
      }
    }
  }
  return y;
}

/** sums += W·x, four rows at a time: a processor adds these side by side. `sums` has room for the last four. */
function addProducts(sums: Float64Array, { rows, cols, data }: Matrix, x: Float64Array): void {
  const last = (rows - 1) * cols;
  for (let first = 0; first < rows; first += 4) {
    const wa = first * cols;
    const wb = Math.min(wa + cols, last);
    const wc = Math.min(wb + cols, last);
    const wd = Math.min(wc + cols, last);
    let [a, b, c, d] = [sums[first], sums[first + 1], sums[first + 2], sums[first + 3]];
    for (let k = 0; k < cols; k++) {
      const v = x[k];
      a += data[wa + k] * v;
      b += data[wb + k] * v;
      c += data[wc + k] * v;
      d += data[wd + k] * v;
    }
    sums[first] = a;
    sums[first + 1] = b;
    sums[first + 2] = c;
    sums[first + 3] = d;
  }
}

function isSize(n: unknown): n is number {
  return typeof n === "number" && Number.isInteger(n) && n >= 1;
}
