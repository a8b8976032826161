import { InputError } from "../tensor/tensor.ts";

/** L(N) = A·N^−α + E: a loss that falls with size towards E. */
export interface PowerLaw {
  readonly A: number;
  readonly alpha: number;
  /** 0 in a fit without offset. */
  readonly E: number;
  /** Root of the mean squared residual. */
  readonly rms: number;
  /** The best E or α within the bounds is a bound: the sizes do not say what it is. */
  readonly atBound: boolean;
}

/** Where α is looked for; published exponents of losses are 0.05 to 0.6. */
export const EXPONENTS = { low: 0.005, high: 4 } as const;
const GRID = 120;
const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * Least squares of L(N) = A·N^−α + E with A ≥ 0 and E ≥ 0; `offset: false`
 * keeps E at 0. Variable projection: for an α the best A and E solve a linear
 * problem, so that the search is over α alone, on a grid and then by golden
 * section in the grid's best interval. It needs no starting point and cannot
 * diverge, unlike Levenberg and Marquardt's, which Kaushal et al. use
 * (https://arxiv.org/abs/2407.12327, eq. 1), and finds the same minimum.
 *
 * Golub and Pereyra, 1973, The Differentiation of Pseudo-Inverses and
 * Nonlinear Least Squares Problems Whose Variables Separate, eq. 2.3.
 *
 * Gives a function of the losses, since a bootstrap fits many to the same sizes.
 */
export function powerLawOf(
  N: readonly number[],
  { offset }: { readonly offset: boolean },
): (L: ArrayLike<number>) => PowerLaw {
  const needed = offset ? 3 : 2;
  if (new Set(N).size < needed) {
    throw new InputError(
      `power law: needs ${needed} sizes at least${offset ? ", or a fit without offset" : ""}, got ${new Set(N).size}`,
    );
  }
  const wrong = N.find((n) => !(n > 0 && Number.isFinite(n)));
  if (wrong !== undefined) throw new InputError(`power law: needs positive sizes, got ${wrong}`);
  // Sizes in units of their geometric mean, so that A and E are of one magnitude.
  const logs = N.map(Math.log);
  const middle = logs.reduce((sum, x) => sum + x, 0) / N.length;
  const powers = (t: number) => {
    const alpha = Math.exp(t);
    return logs.map((log) => Math.exp(-alpha * (log - middle)));
  };
  const low = Math.log(EXPONENTS.low);
  const high = Math.log(EXPONENTS.high);
  const step = (high - low) / (GRID - 1);
  const grid = Array.from({ length: GRID }, (_, i) => powers(low + i * step));

  return (L) => {
    if (L.length !== N.length) throw new InputError(`power law: ${L.length} losses of ${N.length} sizes`);
    for (let i = 0; i < L.length; i++) {
      if (!Number.isFinite(L[i]))
        throw new InputError(`power law: needs finite losses, got L(${N[i]}) = ${L[i]}`);
    }
    let best = 0;
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < GRID; i++) {
      const { squares } = project(grid[i], L, offset);
      if (squares < least) {
        least = squares;
        best = i;
      }
    }
    const t = golden(
      (t) => project(powers(t), L, offset).squares,
      low + Math.max(0, best - 1) * step,
      low + Math.min(GRID - 1, best + 1) * step,
    );
    const { scale, E, squares } = project(powers(t), L, offset);
    const alpha = Math.exp(t);
    const edge = t - low < step / 2 || high - t < step / 2;
    return {
      A: scale * Math.exp(alpha * middle),
      alpha,
      E,
      rms: Math.sqrt(squares / N.length),
      atBound: edge || scale === 0 || (offset && E === 0),
    };
  };
}

/** Where a function of one minimum between a and b has it (Kiefer, 1953). */
function golden(f: (t: number) => number, a: number, b: number): number {
  let left = b - GOLDEN * (b - a);
  let right = a + GOLDEN * (b - a);
  let [atLeft, atRight] = [f(left), f(right)];
  for (let i = 0; i < 45; i++) {
    if (atLeft <= atRight) {
      [b, right, atRight] = [right, left, atLeft];
      left = b - GOLDEN * (b - a);
      atLeft = f(left);
    } else {
      [a, left, atLeft] = [left, right, atRight];
      right = a + GOLDEN * (b - a);
      atRight = f(right);
    }
  }
  return (a + b) / 2;
}

/** The best A′ ≥ 0 and E ≥ 0 of L = A′·x + E, x = (N/N₀)^−α, and the squares that are left. */
function project(
  x: readonly number[],
  L: ArrayLike<number>,
  offset: boolean,
): { scale: number; E: number; squares: number } {
  const n = x.length;
  let sx = 0;
  let sy = 0;
  for (let i = 0; i < n; i++) {
    sx += x[i];
    sy += L[i];
  }
  // Centered sums: x is nearly constant for a small α. Without offset the center is 0.
  const [mx, my] = offset ? [sx / n, sy / n] : [0, 0];
  let sxx = 0;
  let sxy = 0;
  for (let i = 0; i < n; i++) {
    sxx += (x[i] - mx) ** 2;
    sxy += (x[i] - mx) * (L[i] - my);
  }
  const scale = Math.max(0, sxy / sxx);
  const E = my - scale * mx;
  if (E < 0) return project(x, L, false);
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (L[i] - scale * x[i] - E) ** 2;
  return { scale, E, squares };
}

/** Slope of the straight line of least squares through points (x, y). */
export function slope(x: readonly number[], y: ArrayLike<number>): number {
  if (x.length !== y.length || new Set(x).size < 2) {
    throw new InputError(`slope: needs two places at least, got ${new Set(x).size}`);
  }
  const mx = x.reduce((sum, v) => sum + v, 0) / x.length;
  let sxx = 0;
  let sxy = 0;
  for (let i = 0; i < x.length; i++) {
    sxx += (x[i] - mx) ** 2;
    sxy += (x[i] - mx) * y[i];
  }
  return sxy / sxx;
}
