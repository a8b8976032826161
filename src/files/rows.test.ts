import { expect, test } from "vitest";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { reorderRows, ropeOrder, rowRange } from "./rows.ts";

test("the order of rows that turn together, by hand, there and back", () => {
  // A head of 4 as halves: (0, 2) and (1, 3) turn together; as neighbours (0, 1) and (2, 3).
  expect([...ropeOrder(8, 4, "neighbours")]).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
  const [to, back] = [ropeOrder(48, 12, "neighbours"), ropeOrder(48, 12, "halves")];
  expect([...to].map((r) => back[r])).toEqual([...to.keys()]);
});

for (const name of ["f32", "f16", "int4-g32", "int3-offset", "q4_0", "q8_0"]) {
  test(`rows of ${name} move as bytes`, () => {
    const w = Float32Array.from({ length: 6 * 64 }, (_, i) => Math.sin(i * i));
    const weight = encodeWeight(formatByName(name), [6, 64], w);
    const { data } = decodeWeight(weight);
    const order = Int32Array.of(3, 0, 5, 1, 4, 2);
    const moved = decodeWeight(reorderRows(weight, order)!).data;
    for (const [to, from] of order.entries())
      expect(moved.subarray(to * 64, to * 64 + 64)).toEqual(data.subarray(from * 64, from * 64 + 64));
    expect(decodeWeight(rowRange(weight, 2, 5)!).data).toEqual(data.subarray(2 * 64, 5 * 64));
  });
}

test("what has no rows of its own is left to others", () => {
  const vector = encodeWeight(formatByName("f32"), [4], Float32Array.of(1, 2, 3, 4));
  expect(rowRange(vector, 0, 1)).toBeUndefined();
  const sum = { shape: [1, 1], expression: { kind: "sum", terms: [] } } as const;
  expect(reorderRows(sum, Int32Array.of(0))).toBeUndefined();
});
