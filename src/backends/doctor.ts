import { formats } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor } from "../tensor/tensor.ts";
import type { Backend } from "./backend.ts";
import type { HeapBackend } from "./heap.ts";
import { type BackendName, backendNames, openBackend } from "./index.ts";
import type { IntegerKernel } from "./kernel-choice.ts";

/** Whether a backend works here. */
export interface Examination {
  readonly name: BackendName;
  readonly ok: boolean;
  /** What is wrong and what to do, in one line; what to know when it works; or empty. */
  readonly why: string;
  /** What of it runs here: `AVX-512, 2 threads`; empty when it does not work. */
  readonly description: string;
  /** What matrices and int8 activations are multiplied by, by format, where it is not `dot`; when asked for. */
  readonly kernels?: Readonly<Record<string, IntegerKernel>>;
}

/** Opens each backend and lets it multiply two small matrices; with kernels, which take seconds where they were never measured. */
export async function examineBackends({ kernels = false } = {}): Promise<readonly Examination[]> {
  const found: Examination[] = [];
  for (const name of backendNames) found.push(await examine(name, kernels));
  return found;
}

async function examine(name: BackendName, kernels: boolean): Promise<Examination> {
  const warnings: string[] = [];
  try {
    const backend = await openBackend(name, { onWarning: (message) => warnings.push(message) });
    const { description } = backend;
    try {
      const [tokens, dim, out] = [17, 67, 33];
      const random = generator(1);
      const x = normals(random, tokens * dim);
      const w = normals(random, out * dim);
      const y = await backend.read(
        backend.linear(
          backend.upload(hostTensor([tokens, dim], x)),
          backend.upload(hostTensor([out, dim], w)),
        ),
      );
      const wrong = firstWrong(x, w, y as Float32Array, tokens, dim, out);
      if (wrong !== null)
        return { name, ok: false, why: `${name}: ${wrong}; report it with this line`, description };
      const good = { name, ok: true, why: warnings.join("; "), description };
      return kernels ? { ...good, kernels: chosenKernels(backend) } : good;
    } finally {
      backend.dispose();
    }
  } catch (error) {
    return { name, ok: false, why: error instanceof Error ? error.message : String(error), description: "" };
  }
}

/** One format of each stem; what was never measured here is measured now. */
function chosenKernels(backend: Backend): Record<string, IntegerKernel> {
  if (!("integerKernel" in backend)) return {};
  const stems = new Map([...formats.values()].map(({ stem, name }) => [stem, name]));
  const all = [...stems.values()].map(
    (name) => [name, (backend as HeapBackend).integerKernel(name)] as const,
  );
  return Object.fromEntries(all.filter(([, kernel]) => kernel !== "dot"));
}

/** Says which element of y = x·wᵀ is further from the exact one than float32 arithmetic in any order can bring it. */
function firstWrong(
  x: Float32Array,
  w: Float32Array,
  y: Float32Array,
  tokens: number,
  dim: number,
  out: number,
) {
  for (let t = 0; t < tokens; t++) {
    for (let o = 0; o < out; o++) {
      let sum = 0;
      let absolute = 0;
      for (let i = 0; i < dim; i++) {
        const product = x[t * dim + i] * w[o * dim + i];
        sum += product;
        absolute += Math.abs(product);
      }
      const got = y[t * out + o];
      if (!(Math.abs(got - sum) <= (dim + 3) * 2 ** -24 * absolute)) {
        return `a small matrix product gives ${got} where ${sum} is right`;
      }
    }
  }
  return null;
}
