/** 1 for the k largest of `values`, 0 for the others; of equal ones the earlier count as larger. */
export function topK(values: ArrayLike<number>, k: number): Uint8Array {
  const order = Array.from(values, (_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
  const chosen = new Uint8Array(values.length);
  for (const i of order.slice(0, k)) chosen[i] = 1;
  return chosen;
}
