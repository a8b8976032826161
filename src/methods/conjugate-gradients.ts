import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";

/** min ‖A·c − b‖² under some metric: a quadratic in c, known by what it does to vectors. */
export interface Quadratic {
  /** Aᵀ·A·p */
  readonly times: (p: Float32Array) => Promise<Float64Array>;
  /** Aᵀ·(b − A·c) at the start. */
  readonly residual: Float64Array;
  /** Of AᵀA, or something like it: what steps are divided by; where it is 0, c stays. */
  readonly diagonal: Float64Array;
}

/**
 * `steps` conjugate gradients from c (Hestenes and Stiefel, 1952, with the diagonal as preconditioner): none raises the
 * quadratic.
 */
export async function conjugateGradients(
  c: Float32Array,
  { times, residual: r, diagonal }: Quadratic,
  steps: number,
  job: Job = {},
): Promise<Float32Array> {
  const pause = pauses(job);
  const result = Float64Array.from(c);
  const over = () => r.map((x, i) => (diagonal[i] > 0 ? x / diagonal[i] : 0));
  let z = over();
  let p = z.slice();
  let rz = dot(r, z);
  for (let step = 0; step < steps && rz > 0; step++) {
    const q = await times(Float32Array.from(p));
    const α = rz / dot(p, q);
    if (!(α > 0 && Number.isFinite(α))) break;
    for (let i = 0; i < p.length; i++) {
      result[i] += α * p[i];
      r[i] -= α * q[i];
    }
    z = over();
    const next = dot(r, z);
    const β = next / rz;
    p = p.map((x, i) => z[i] + β * x);
    rz = next;
    await pause();
  }
  return Float32Array.from(result);
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
