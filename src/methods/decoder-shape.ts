import { checkPatch, type LayerSizes } from "../formats/decoder.ts";
import { bytesPerMatrix, formatByName } from "../formats/index.ts";
import { normals, type Random } from "../tensor/random.ts";
import { halfAway } from "../tensor/rounding.ts";
import { type HostTensor, hostTensor, InputError } from "../tensor/tensor.ts";

/** How matrices are cut and how large their latent images are; what a decoder's own weights may cost. */
export interface DecoderShape {
  /** p: side of a patch; divides rows and columns. */
  readonly patch: number;
  /** By how much each stage of the decoder makes its images larger; their product divides p. */
  readonly strides: readonly number[];
  /** Codes at each place of a latent image. */
  readonly codes: number;
  /** d: latent values of a code. */
  readonly length: number;
  /** Stored bits that the decoder may have for each weight of the matrices that share it. */
  readonly decoderBits: number;
  /** Channels of its widest layer, at most. */
  readonly width: number;
  /** How its weights are stored. */
  readonly format: string;
}

/** Each stage of the decoder has so many times fewer channels than the one before. */
const NARROWING = 1.2;
/** Channels of the encoder, at the least. */
const ENCODER_CHANNELS = 32;
/** Share of random numbers in what begins as the identity. */
const NOISE = 0.1;

/** Throws an InputError unless patches fill the matrix, stages a patch, vectors a book, and the decoder has room for a channel. */
export function checkDecoderShape(
  method: string,
  { rows, cols }: { readonly rows: number; readonly cols: number },
  shape: DecoderShape & { readonly entries: number },
): void {
  const { patch, strides, codes, entries, decoderBits } = shape;
  checkPatch(method, { rows, cols }, patch);
  if (patch % upscaling(strides) !== 0) {
    throw new InputError(
      `${method}: strides of ${strides.join(", ")} come to ${upscaling(strides)}, which does not divide patches of ${patch}`,
    );
  }
  const vectors = (codes * rows * cols) / upscaling(strides) ** 2;
  if (entries > vectors) {
    throw new InputError(
      `${method}: a book of ${entries} entries is larger than the ${vectors} codes of ${rows}×${cols}; take fewer entries, or more codes`,
    );
  }
  decoderWithin(method, shape, decoderBits * rows * cols);
}

export function upscaling(strides: readonly number[]): number {
  return strides.reduce((product, stride) => product * stride, 1);
}

/**
 * The widest decoder, of `width` channels at most, that so many bits can store: a convolution 1 × 1, a stage for each stride with kernels 1, 3, 5, 5, …
 * and channels divided by 1.2, and a head 3 × 3.
 */
export function decoderWithin(
  where: string,
  { patch, strides, codes, length, format, width: most }: DecoderShape,
  bits: number,
): LayerSizes[] {
  const layersOf = (width: number) => {
    const side = patch / upscaling(strides);
    const layers: LayerSizes[] = [{ side, channels: codes * length, kernel: 1, stride: 1, out: width }];
    const add = (kernel: number, stride: number, narrowed: (channels: number) => number) => {
      const last = layers[layers.length - 1];
      layers.push({
        side: last.side * last.stride,
        channels: last.out,
        kernel,
        stride,
        out: narrowed(last.out),
      });
    };
    for (const [i, stride] of strides.entries()) {
      add(Math.min(1 + 2 * i, 5), stride, (channels) => Math.max(1, halfAway(channels / NARROWING)));
    }
    add(3, 1, () => 1);
    return layers;
  };
  const bitsOf = (layers: readonly LayerSizes[]) =>
    layers.reduce((sum, { kernel, channels, stride, out }) => {
      const made = stride ** 2 * out;
      return sum + 8 * bytesPerMatrix(formatByName(format), made, kernel ** 2 * channels) + 16 * made;
    }, 0);
  const least = bitsOf(layersOf(1));
  if (!(least <= bits)) {
    throw new InputError(
      `${where}: a decoder needs ${least} bits at the least, and may have ${Math.floor(bits)}; give it more, or a smaller latent`,
    );
  }
  let width = 1;
  while (width < most && bitsOf(layersOf(width + 1)) <= bits) width++;
  return layersOf(width);
}

/** The encoder, which mirrors the decoder: a convolution 3 × 3 of gathered squares for each stride from the last, then one 1 × 1. */
export function encoderFor({ patch, strides, codes, length }: DecoderShape): LayerSizes[] {
  const layers: LayerSizes[] = [];
  const width = Math.max(ENCODER_CHANNELS, 2 * codes * length);
  let [side, channels] = [patch, 1];
  for (const stride of strides.toReversed()) {
    side /= stride;
    layers.push({ side, channels: stride ** 2 * channels, kernel: 3, stride: 1, out: width });
    channels = width;
  }
  return [...layers, { side, channels, kernel: 1, stride: 1, out: codes * length }];
}

/**
 * Weights and biases of layers before training, those of `DecoderLayer`: normal numbers, variance 2 of what a GELU halves.
 * Layers wide enough begin near the identity of the `values` numbers at each place of what comes in, so that a latent of
 * as many values as there are weights begins as these weights: gelu(x) − gelu(−x) = x. `gathered` says what squares of
 * places become one before each layer, as the encoder has it.
 */
export function initialLayers(
  layers: readonly LayerSizes[],
  random: Random,
  values: number,
  gathered: readonly number[] = [],
): HostTensor[] {
  const passes = passing(layers, values, gathered);
  return layers.flatMap(({ kernel, channels, stride, out }, i) => {
    const [made, taken] = [stride ** 2 * out, kernel ** 2 * channels];
    const weights = normals(random, made * taken, (passes ? NOISE : 1) * Math.sqrt(2 / taken));
    const middle = ((kernel ** 2 - 1) / 2) * channels;
    for (const { row, channel, factor } of passes?.[i] ?? [])
      weights[row * taken + middle + channel] += factor;
    return [hostTensor([made, taken], weights), hostTensor([1, made], new Float32Array(made))];
  });
}

interface Pass {
  readonly row: number;
  readonly channel: number;
  readonly factor: number;
}

/** The weights that let values pass each layer: between layers as x and −x in two channels. Undefined without room for it. */
function passing(
  layers: readonly LayerSizes[],
  values: number,
  gathered: readonly number[],
): Pass[][] | undefined {
  const passes: Pass[][] = [];
  let count = values;
  let signs = [1];
  for (const [i, { channels, stride, out }] of layers.entries()) {
    const squares = (gathered[i] ?? 1) ** 2;
    const before = count;
    const after = (squares * before) / stride ** 2;
    const next = i === layers.length - 1 ? [1] : [1, -1];
    if (channels < squares * before * signs.length || out < after * next.length) return undefined;
    passes.push([]);
    for (let k = 0; k < squares * before; k++) {
      for (const [n, sign] of next.entries()) {
        const row = Math.floor(k / after) * out + (k % after) * next.length + n;
        for (const [s, own] of signs.entries()) {
          const channel = (Math.floor(k / before) * channels) / squares + (k % before) * signs.length + s;
          passes[i].push({ row, channel, factor: sign * own });
        }
      }
    }
    count = after;
    signs = next;
  }
  return passes;
}
