import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { imagesOf, type Kernel, needWhole } from "./kernel.ts";

/**
 * Channels spread out in space, or (`back` 1) squares of pixels gathered into channels: a rearrangement.
 *
 *   small (n·(height/s)·(width/s), s·s·channels)  <->  large (n·height, width·channels), n images of (height, width)
 *   large[n, s·r + i, s·c + j] = small[n, r, c, (i·s + j)·channels …]
 *
 * `back` 0 makes the large one of the small one, 1 the small one of the large; the gradient goes the other way.
 *
 * Shi et al., 2016 (https://arxiv.org/abs/1609.05158), eq. 4, with the channels of a pixel side by side.
 */
export const pixelShuffle: Kernel<
  [x: Tensor, height: number, width: number, channels: number, stride: number, back: number]
> = {
  outputs(x, height, width, channels, stride, back) {
    for (const [name, size] of Object.entries({ height, width, channels, stride }))
      needWhole(`pixelShuffle: ${name}`, size, 1);
    if (height % stride !== 0 || width % stride !== 0) {
      throw new ShapeError(`pixelShuffle: a stride of ${stride} does not divide ${height}×${width}`);
    }
    if (back !== 0 && back !== 1) throw new ShapeError(`pixelShuffle: back is 0 or 1, got ${back}`);
    const images = imagesOf("pixelShuffle", x, height * width * channels);
    const area = stride * stride;
    const small = [(images * height * width) / area, area * channels];
    return [{ shape: back ? small : [images * height, width * channels], format: "f32" }];
  },

  numbers(x, height, width, channels, stride, back) {
    return [sizeOf(x.shape) / (height * width * channels), height, width, channels, stride, back];
  },

  forward([x], [y], numbers) {
    const back = numbers[5];
    eachPixel(numbers, (small, large) => {
      if (back) y.data[small] = x.data[large];
      else y.data[large] = x.data[small];
    });
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dx], numbers) {
    const back = numbers[5];
    eachPixel(numbers, (small, large) => {
      if (dx && back) dx.data[large] = dy.data[small];
      else if (dx) dx.data[small] = dy.data[large];
    });
  },

  bound(_inputs, [y]) {
    return [new Float64Array(y.data.length)];
  },

  boundBackward(_inputs, _outputs, _dy, [dx]) {
    return [dx && new Float64Array(dx.data.length)];
  },
};

/** Every element with its place in the small and in the large one. */
function eachPixel(
  [images, height, width, channels, stride]: readonly number[],
  visit: (small: number, large: number) => void,
): void {
  let small = 0;
  for (let row = 0; row < (images * height) / stride; row++) {
    for (let c = 0; c < width / stride; c++) {
      for (let i = 0; i < stride; i++) {
        for (let j = 0; j < stride * channels; j++) {
          visit(small++, ((row * stride + i) * width + c * stride) * channels + j);
        }
      }
    }
  }
}
