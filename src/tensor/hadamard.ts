/** Every `block` values times the orthonormal Hadamard matrix of that size, a power of two, by the fast transform in 64 bits. */
export function hadamardOf(x: ArrayLike<number>, block: number): Float64Array {
  const y = Float64Array.from(x);
  for (let half = 1; half < block; half *= 2) {
    for (let i = 0; i < y.length; i++) {
      if (i & half) continue;
      const [a, b] = [y[i], y[i + half]];
      y[i] = a + b;
      y[i + half] = a - b;
    }
  }
  return y.map((value) => value / Math.sqrt(block));
}
