import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, imagesOf, type Kernel, needAround, TINY } from "./kernel.ts";

/**
 * Every place sums what the k × k places around it, inside the image, hold for it. Of `linear` it is a convolution, as
 * `linear` of `neighbourhoods` is: k² numbers for each channel that comes out, where that has k² for each that goes in.
 *
 *   y[n, r, c, o] = Σ_ij x[n, r + i − m, c + j − m, o, i, j],  m = (k−1)/2,  k odd
 *   x n images of (height, width, channels·k·k) -> y (n·height·width, channels)
 *   dx[n, r, c, o, i, j] = dy[n, r − i + m, c − j + m, o]
 */
export const neighbourSums: Kernel<
  [x: Tensor, height: number, width: number, channels: number, kernel: number]
> = {
  outputs(x, height, width, channels, kernel) {
    needAround("neighbourSums", { height, width, channels, kernel });
    const images = imagesOf("neighbourSums", x, height * width * channels * kernel ** 2);
    return [{ shape: [images * height * width, channels], format: "f32" }];
  },

  numbers(x, height, width, channels, kernel) {
    const images = sizeOf(x.shape) / (height * width * channels * kernel ** 2);
    return [images, height, width, channels, kernel];
  },

  forward([x], [y], sizes) {
    const sums = new Float64Array(y.data.length);
    eachTerm(sizes, (to, from) => {
      sums[to] += x.data[from];
    });
    y.data.set(sums);
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dx], sizes) {
    if (!dx) return;
    dx.data.fill(0); // what lies beyond the edges has no place that sums it
    eachTerm(sizes, (to, from) => {
      dx.data[from] = dy.data[to];
    });
  },

  // A sum of k·k terms.
  bound([x], [y], sizes) {
    const bounds = new Float64Array(y.data.length);
    const kernel = sizes[4];
    eachTerm(sizes, (to, from) => {
      bounds[to] += Math.abs(x.data[from]) * gamma(kernel * kernel) + TINY;
    });
    return [bounds];
  },

  // A copy.
  boundBackward(_inputs, _outputs, _dy, [dx]) {
    return [dx && new Float64Array(dx.data.length)];
  },
};

/** Every element of y with each element of x that it sums. */
function eachTerm(
  [images, height, width, channels, kernel]: readonly number[],
  visit: (to: number, from: number) => void,
): void {
  const middle = (kernel - 1) / 2;
  let to = 0;
  for (let row = 0; row < images * height; row++) {
    for (let c = 0; c < width; c++) {
      for (let channel = 0; channel < channels; channel++, to++) {
        for (let i = 0; i < kernel; i++) {
          const r = (row % height) + i - middle;
          if (r < 0 || r >= height) continue;
          for (let j = 0; j < kernel; j++) {
            const column = c + j - middle;
            if (column < 0 || column >= width) continue;
            const place = (row + i - middle) * width + column;
            visit(to, ((place * channels + channel) * kernel + i) * kernel + j);
          }
        }
      }
    }
  }
}
