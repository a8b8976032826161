import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, imagesOf, type Kernel, needAround, TINY } from "./kernel.ts";

/**
 * The k × k neighbourhood of every place of some images, zeros beyond their edges: `linear` of it is a convolution.
 *
 *   y[n, r, c, i, j] = x[n, r + i − m, c + j − m],  m = (k−1)/2,  k odd
 *   x n images of (height, width, channels) -> y (n·height·width, k·k·channels)
 *   dx[n, r, c] = Σ_ij dy[n, r − i + m, c − j + m, i, j]
 */
export const neighbourhoods: Kernel<
  [x: Tensor, height: number, width: number, channels: number, kernel: number]
> = {
  outputs(x, height, width, channels, kernel) {
    needAround("neighbourhoods", { height, width, channels, kernel });
    const images = imagesOf("neighbourhoods", x, height * width * channels);
    return [{ shape: [images * height * width, kernel * kernel * channels], format: "f32" }];
  },

  numbers(x, height, width, channels, kernel) {
    return [sizeOf(x.shape) / (height * width * channels), height, width, channels, kernel];
  },

  forward([x], [y], sizes) {
    eachNeighbour(sizes, (to, from) => {
      y.data[to] = from === undefined ? 0 : x.data[from];
    });
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dx], sizes) {
    if (!dx) return;
    const sums = new Float64Array(dx.data.length);
    eachNeighbour(sizes, (to, from) => {
      if (from !== undefined) sums[from] += dy.data[to];
    });
    dx.data.set(sums);
  },

  // A copy.
  bound(_inputs, [y]) {
    return [new Float64Array(y.data.length)];
  },

  // A sum of k·k terms.
  boundBackward(_inputs, _outputs, dy, [dx], sizes) {
    if (!dx) return [null];
    const bounds = new Float64Array(dx.data.length);
    const kernel = sizes[4];
    eachNeighbour(sizes, (to, from) => {
      if (from !== undefined) bounds[from] += Math.abs(dy.data[to]) * gamma(kernel * kernel) + TINY;
    });
    return [bounds];
  },
};

/** Every element of y with the element of x that it is, undefined beyond the edges. */
function eachNeighbour(
  [images, height, width, channels, kernel]: readonly number[],
  visit: (to: number, from: number | undefined) => void,
): void {
  const middle = (kernel - 1) / 2;
  let to = 0;
  for (let row = 0; row < images * height; row++) {
    for (let c = 0; c < width; c++) {
      for (let i = -middle; i <= middle; i++) {
        const r = (row % height) + i;
        for (let j = -middle; j <= middle; j++) {
          const inside = r >= 0 && r < height && c + j >= 0 && c + j < width;
          for (let channel = 0; channel < channels; channel++) {
            visit(to++, inside ? ((row + i) * width + c + j) * channels + channel : undefined);
          }
        }
      }
    }
  }
}
