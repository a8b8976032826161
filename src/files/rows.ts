import { type Part, type Parts, packedWeight, type Weight } from "../tensor/weight.ts";

/** Rows from…to−1 of a weight, as views; undefined where its parts do not go row by row. */
export function rowRange(weight: Weight, from: number, to: number): Weight | undefined {
  return byRows(weight, to - from, (bytes, width) => bytes.subarray(from * width, to * width));
}

/** The same weight with row `order[r]` at row r; undefined where its parts do not go row by row. */
export function reorderRows(weight: Weight, order: Int32Array): Weight | undefined {
  return byRows(weight, order.length, (bytes, width) => {
    const moved = new Uint8Array(bytes.byteLength);
    for (const [to, from] of order.entries())
      moved.set(bytes.subarray(from * width, (from + 1) * width), to * width);
    return moved;
  });
}

/**
 * Order of the rows of q or k that makes the other elements of a head turn
 * together: for `neighbours` row 2i+s of a head is row s·n/2+i of one whose
 * halves turn together, n = headDim; for `halves` the reverse.
 */
export function ropeOrder(rows: number, headDim: number, to: "neighbours" | "halves"): Int32Array {
  const half = headDim / 2;
  const order = new Int32Array(rows);
  for (let r = 0; r < rows; r++) {
    const i = r % headDim;
    const moved = to === "neighbours" ? (i % 2) * half + (i >> 1) : 2 * (i % half) + Math.floor(i / half);
    order[r] = r - i + moved;
  }
  return order;
}

function byRows(
  weight: Weight,
  count: number,
  take: (bytes: Uint8Array, width: number) => Uint8Array,
): Weight | undefined {
  const { expression, shape } = weight;
  const [rows, cols] = shape;
  if (expression.kind !== "packed" || shape.length !== 2) return undefined;
  const parts: Record<string, Part> = {};
  for (const [name, { dtype, shape: stored, bytes }] of Object.entries(expression.parts)) {
    if (stored[0] !== rows) return undefined;
    parts[name] = { dtype, shape: [count, ...stored.slice(1)], bytes: take(bytes, bytes.byteLength / rows) };
  }
  return packedWeight([count, cols], expression.format, parts satisfies Parts);
}
