// Multiplications in one call of a backend: some 30 ms on two cores of a common processor, so that
// Ctrl-C, progress and a server answer between calls.
const PRODUCTS = 2 ** 28;

/**
 * Cuts from … to−1 into ranges of so many steps that a range costs one slice
 * of time, when a step costs `products` multiplications. The cuts depend on
 * the sizes alone, so that results never depend on the machine's speed.
 */
export function* slices(from: number, to: number, products: number): Generator<[from: number, to: number]> {
  const steps = Math.max(1, Math.floor(PRODUCTS / Math.max(1, products)));
  for (let at = from; at < to; at += steps) yield [at, Math.min(at + steps, to)];
}
