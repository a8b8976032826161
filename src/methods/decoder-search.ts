import type { LayerSizes } from "../formats/decoder.ts";
import type { Matrix } from "../tensor/tensor.ts";

/** Some patches, their codes, and what decodes them. */
export interface Drawing {
  /** (patches, side, side, perPlace) */
  readonly codes: Int32Array;
  /** Patches and what their elements count, each (patches, p, p). */
  readonly x: Float32Array;
  readonly m: Float32Array;
  /** Patches that codes stand for. */
  draw(codes: Int32Array): Promise<Float32Array>;
}

export interface SearchOptions {
  readonly patch: number;
  readonly layers: readonly LayerSizes[];
  /** Codes at each place of a latent image. */
  readonly perPlace: number;
  /** (entries, near) the entries that are tried instead of each: `nearestTo`. */
  readonly neighbours: Int32Array;
  readonly near: number;
}

/**
 * Codes with no more error than those given: one pass of coordinate descent. A code reaches the weights that its
 * convolutions reach; places so far apart that nothing is reached by two of them change together, each to the best of
 * the entries tried, which are those nearest to its present one in the book. The error Σ m·(D(codes) − x)² of what a
 * place reaches is then that of its own choice alone.
 */
export async function betterCodes(
  { codes, x, m, draw }: Drawing,
  { patch, layers, perPlace, neighbours, near }: SearchOptions,
): Promise<Int32Array> {
  const side = layers[0].side;
  const cell = patch / side;
  const reach = layers.reduce((sum, { kernel, side: own }) => sum + ((kernel - 1) / 2) * (patch / own), 0);
  const apart = Math.ceil((cell + 2 * reach) / cell);
  const patches = x.length / patch ** 2;
  const chosen = codes.slice();

  /** The error of all that place (r, c) of a patch reaches. */
  const around = (image: number, r: number, c: number, made: Float32Array) => {
    const [top, bottom] = [Math.max(0, r * cell - reach), Math.min(patch, (r + 1) * cell + reach)];
    const [left, right] = [Math.max(0, c * cell - reach), Math.min(patch, (c + 1) * cell + reach)];
    let error = 0;
    for (let i = top; i < bottom; i++) {
      const row = (image * patch + i) * patch;
      for (let at = row + left; at < row + right; at++) error += m[at] * (made[at] - x[at]) ** 2;
    }
    return error;
  };

  for (let turn = 0; turn < apart ** 2 * perPlace; turn++) {
    const [own, down, across] = [
      turn % perPlace,
      Math.floor(turn / perPlace) % apart,
      Math.floor(turn / perPlace / apart),
    ];
    const moving: { at: number; image: number; r: number; c: number }[] = [];
    for (let image = 0; image < patches; image++) {
      for (let r = down; r < side; r += apart) {
        for (let c = across; c < side; c += apart) {
          const at = ((image * side + r) * side + c) * perPlace + own;
          moving.push({ at, image, r, c });
        }
      }
    }
    if (moving.length === 0) continue;
    // As it is, and with each of the entries, drawn at once: many small drawings would wait for their beginnings.
    const tried = new Int32Array((near + 1) * chosen.length);
    for (let k = 0; k <= near; k++) {
      tried.set(chosen, k * chosen.length);
      if (k === 0) continue;
      for (const { at } of moving) tried[k * chosen.length + at] = neighbours[chosen[at] * near + k - 1];
    }
    const made = await draw(tried);
    for (const { at, image, r, c } of moving) {
      let least = Number.POSITIVE_INFINITY;
      for (let k = 0; k <= near; k++) {
        const error = around(image, r, c, made.subarray(k * x.length));
        if (error >= least) continue;
        least = error;
        chosen[at] = tried[k * chosen.length + at];
      }
    }
  }
  return chosen;
}

/** The `near` nearest other entries of each entry, the nearest first; fewer others are repeated. */
export function nearestTo({ rows, cols, data }: Matrix, near: number): Int32Array {
  const result = new Int32Array(rows * near);
  for (let k = 0; k < rows; k++) {
    const distances = new Float64Array(rows);
    for (let other = 0; other < rows; other++) {
      for (let j = 0; j < cols; j++) distances[other] += (data[k * cols + j] - data[other * cols + j]) ** 2;
    }
    const others = Int32Array.from({ length: rows }, (_, other) => other)
      .filter((other) => other !== k)
      .sort((a, b) => distances[a] - distances[b] || a - b);
    for (let i = 0; i < near; i++) result[k * near + i] = others[i % others.length];
  }
  return result;
}
