import type { Backend } from "../backends/backend.ts";
import type { GroupFormat } from "../formats/format.ts";
import { groupSize } from "../formats/format.ts";
import { hostTensor, InputError, type Matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";

/**
 * A matrix packed as it is: every weight at a level of its group, whose scale is known. `scaleAt` is asked for the
 * first weight (r, c) of each group. Throws an InputError for a format that does not have the levels.
 */
export function packExactly(
  method: string,
  Ŵ: Matrix,
  format: GroupFormat,
  scaleAt: (r: number, c: number) => number,
): Weight {
  const { rows, cols, data } = Ŵ;
  const size = groupSize(format, rows, cols);
  const codes = new Uint8Array(data.length);
  const parameters = Array.from({ length: data.length / size }, (_, g) => {
    const from = g * size;
    const group = { scale: scaleAt(Math.floor(from / cols), from % cols), offset: 0 };
    for (let i = from; i < from + size; i++) {
      codes[i] = format.nearest(data[i], group, i - from);
      const stored = format.value(codes[i], group, i - from);
      if (stored !== data[i]) {
        throw new InputError(
          `${method}: ${format.name} stores ${stored} where training has ${data[i]}; use a format with its levels`,
        );
      }
    }
    return group;
  });
  return packedWeight([rows, cols], format.name, format.pack({ codes, parameters }, rows, cols));
}

/**
 * What a kernel with one scale for a whole matrix makes of W, packed. The backend's own forward pass decides, so that
 * a weight between two levels becomes what it was in training.
 */
export async function packOneScale(
  method: string,
  kernel: "ternary" | "binary",
  { rows, cols, data }: Matrix,
  numbers: readonly number[],
  format: GroupFormat,
  backend: Backend,
): Promise<Weight> {
  const [Ŵ, scale] = backend.scope(() =>
    backend.forward(kernel, [backend.upload(hostTensor([rows, cols], data)), ...numbers]),
  );
  try {
    const rounded = { rows, cols, data: (await backend.read(Ŵ)) as Float32Array };
    const [γ] = await backend.read(scale);
    return packExactly(method, rounded, format, () => γ);
  } finally {
    for (const t of [Ŵ, scale]) backend.free(t);
  }
}
