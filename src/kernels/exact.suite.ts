import { type Elements, type HostTensor, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type KernelName, kernels, type Operations, operationsOver } from "./index.ts";
import { type Kernel, tensorsIn, type View } from "./kernel.ts";
import { elementsView } from "./view.ts";

/** A view whose floats are doubles, so that the reference kernels compute in 64 bits throughout; whole numbers stay. */
export function exactView(shape: readonly number[], elements: Elements | Float64Array): View {
  if (elements instanceof Int32Array) return elementsView(shape, elements);
  const data = Float64Array.from(elements) as unknown as Float32Array;
  const magnitudes = () => data.map(Math.abs);
  return { shape, format: "f32", data, ids: new Int32Array(0), decode: () => data, magnitudes };
}

/** The operations in 64 bits, on tensors from `exactTensor`. */
export function exactOperations(): Operations {
  return operationsOver((name, args) => exactForward(name, args)[0]);
}

/** All outputs of an operation on exact tensors. */
export function exactForward(name: KernelName, args: readonly unknown[]): View[] {
  const kernel = kernels[name] as Kernel;
  const outputs = kernel
    .outputs(...args)
    .map(({ shape }) => exactView(shape, new Float64Array(sizeOf(shape))));
  kernel.forward(tensorsIn(args) as View[], outputs, kernel.numbers(...args));
  return outputs;
}

/** A tensor for `exactOperations`. */
export function exactTensor({ shape, data }: HostTensor): Tensor {
  return exactView(shape, data);
}

/** What an exact tensor holds. */
export function exactValues(t: Tensor): Float64Array {
  return (t as View).data as unknown as Float64Array;
}
