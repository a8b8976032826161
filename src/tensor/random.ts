/** A stream of uniform numbers in [0, 1), 53 bits each, with a state that can be saved and restored. */
export interface Random {
  (): number;
  /** Four 32-bit words; pass them to `generator` to continue from here. */
  state(): [number, number, number, number];
}

/**
 * xoshiro128** of Blackman and Vigna, 2018 (https://prng.di.unimi.it/xoshiro128starstar.c),
 * seeded by splitmix32. Randomness is an argument everywhere; no module owns a generator.
 */
export function generator(seed: number | readonly [number, number, number, number]): Random {
  let [a, b, c, d] = typeof seed === "number" ? splitmix(seed) : seed;
  const next32 = () => {
    const product = Math.imul(b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  const random = () => ((next32() >>> 5) * 67108864 + (next32() >>> 6)) / 9007199254740992;
  return Object.assign(random, {
    state: () => [a >>> 0, b >>> 0, c >>> 0, d >>> 0] as [number, number, number, number],
  });
}

function splitmix(seed: number): [number, number, number, number] {
  let state = seed | 0;
  const word = () => {
    state = (state + 0x9e3779b9) | 0;
    let z = state ^ (state >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  return [word(), word(), word(), word()];
}

/** n numbers of the standard normal distribution times `scale` (Box and Muller, 1958). */
export function normals(random: Random, n: number, scale = 1): Float32Array {
  const values = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const radius = scale * Math.sqrt(-2 * Math.log(1 - random()));
    const angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < n) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** An order of 0 … n−1, each equally likely (Fisher and Yates). */
export function permutation(random: Random, n: number): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** A seed for what is called `name`, of a run's seed: FNV-1a over the name, begun from the seed. */
export function seedOf(name: string, seed: number): number {
  let mixed = seed ^ 0x811c9dc5;
  for (let i = 0; i < name.length; i++) mixed = Math.imul(mixed ^ name.charCodeAt(i), 0x01000193);
  return mixed;
}
