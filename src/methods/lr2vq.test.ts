import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { type Matrix, matrix } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight } from "../tensor/weight.ts";
import { decomposition } from "./compressor.ts";
import { lr2vq } from "./lr2vq.ts";
import { reallm } from "./reallm.ts";

const backend = await openBackend("native", {}).catch(() => openReference());

/** Vectors of 8 weights that lie near a plane. */
function near(plane: number, noise: number): Matrix {
  const random = generator(9);
  const [directions, places] = [normals(random, plane * 8), normals(random, plane * 128 * 16)];
  const W = matrix(128, 128, normals(random, 128 * 128, noise));
  for (let v = 0; v < 128 * 16; v++) {
    for (let j = 0; j < 8; j++) {
      for (let a = 0; a < plane; a++) W.data[v * 8 + j] += places[v * plane + a] * directions[a * 8 + j];
    }
  }
  return W;
}

async function lostBy(compressor: ReturnType<typeof decomposition>, W: Matrix) {
  const weight = await compressor.compress(W, { backend });
  const Ŵ = decodeWeight(weight).data;
  const squares = (x: Float32Array) => x.reduce((sum, v) => sum + v * v, 0);
  return { weight, lost: squares(W.data.map((w, i) => w - Ŵ[i])) / squares(W.data) };
}

it("where vectors lie near a plane it loses less than k-means in fewer bytes", async () => {
  const W = near(2, 0.1);
  const low = await lostBy(decomposition(lr2vq, { bits: 1, length: 8, latent: 2 }), W);
  const plain = await lostBy(decomposition(reallm, { bits: 0.875, length: 8, rank: 0 }), W);
  expect(bytesOf(low.weight)).toBeLessThan(bytesOf(plain.weight));
  expect(low.lost).toBeLessThan(plain.lost);
});

it("bytes of the codes depend on the length alone, those of the book on the latent size", async () => {
  const W = near(3, 0.5);
  for (const latent of [1, 2, 4]) {
    const { weight } = await lostBy(decomposition(lr2vq, { length: 4, latent }), W);
    expect(describeWeight(weight)).toBe("scaleGroups(f16, codebook(lowRank(f16, f16)))");
    const split = bitsByUse(weight);
    expect(split.codes).toBe(2 * 128 * 128);
    expect(split.codebooks).toBe(16 * latent * (256 + 4));
  }
});

it.each([
  [{ length: 4, latent: 5 }, "lr2vq: entries of 5 numbers are longer than their vectors of 4; take 1 to 4"],
  [{ length: 3 }, "lr2vq: vectors of 3 do not fill rows of 128"],
])("lr2vq refuses %o", (options, message) => {
  expect(() => decomposition(lr2vq, options).check({ rows: 128, cols: 128 })).toThrow(message);
});
