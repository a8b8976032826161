import { describe, expect, test } from "vitest";
import { linearAxis, logarithmicAxis } from "./axis.ts";
import { heatMap } from "./heat-map.ts";
import { histogram } from "./histogram.ts";
import { digits, lineChart, type Point, thinned, valueAt } from "./line-chart.ts";
import { draw, markup, type Picture, path } from "./svg.ts";

/** All elements of a picture that have a tag. */
function all(picture: Picture, tag: string): Picture[] {
  const inside = picture.children.flatMap((child) => (typeof child === "string" ? [] : all(child, tag)));
  return picture.tag === tag ? [picture, ...inside] : inside;
}
const words = (picture: Picture) => all(picture, "text").map(({ children }) => children.join(""));

describe("axes", () => {
  test("ticks are at 1, 2 or 5 times a power of ten, inside the values, and as many as wanted", () => {
    for (const [low, high, wanted, ticks] of [
      [0, 1465, 5, [0, 500, 1000]],
      [4.1, 7.3, 4, [5, 6, 7]],
      [0, 0.003, 3, [0, 0.001, 0.002, 0.003]],
      [-2, 2, 4, [-2, -1, 0, 1, 2]],
    ] as const) {
      const axis = linearAxis(low, high, 0, 100, wanted);
      expect(axis.ticks.map((tick) => Number(tick.toPrecision(12)))).toEqual(ticks);
      expect(axis.at(low)).toBe(0);
      expect(axis.at(high)).toBe(100);
    }
    expect(logarithmicAxis(0.02, 300, 0, 100, 5).ticks).toEqual([0.1, 1, 10, 100]);
    expect(logarithmicAxis(0.3, 3, 0, 100, 4).ticks.map((t) => Number(t.toPrecision(6)))).toEqual([
      0.5, 1, 2,
    ]);
  });

  test("numbers are written as short as they are told apart", () => {
    const text = (low: number, high: number) => {
      const axis = linearAxis(low, high, 0, 1, 4);
      return axis.ticks.map(axis.text);
    };
    expect(text(0, 0.4)).toEqual(["0", "0.1", "0.2", "0.3", "0.4"]);
    expect(text(0, 40_000)).toEqual(["0", "10k", "20k", "30k", "40k"]);
    expect(text(0, 4e6)).toEqual(["0", "1M", "2M", "3M", "4M"]);
    expect(text(0, 4e-5)).toEqual(["0", "1e-5", "2e-5", "3e-5", "4e-5"]);
  });

  test("values of any size end in few ticks", () => {
    for (const [low, high] of [
      [1e17, 1e17 + 64],
      [0, 5e-324],
      [-1e308, 1e308],
      [0, Number.POSITIVE_INFINITY],
    ]) {
      expect(linearAxis(low, high, 0, 100, 4).ticks.length).toBeLessThan(20);
    }
  });

  test("one value has a place too", () => {
    for (const axis of [
      linearAxis(0, 0, 0, 10, 3),
      linearAxis(7, 7, 0, 10, 3),
      logarithmicAxis(2, 2, 0, 10, 3),
    ]) {
      expect(axis.at(axis.ticks[0] ?? 0)).not.toBeNaN();
    }
    expect(linearAxis(7, 7, 0, 10, 3).at(7)).toBe(5);
  });
});

describe("lines over steps", () => {
  const base = { label: "loss", width: 400, height: 200, from: 0, to: 10 };
  const points: Point[] = Array.from({ length: 11 }, (_, x) => [x, 10 - x]);

  test("points are where the axes say, and the legend tells the value at the cursor", () => {
    const picture = lineChart({ ...base, lines: [{ label: "training", color: 0, points }] });
    const [line] = all(picture, "path");
    const places = [...String(line.attributes.d).matchAll(/[ML]([\d.]+) ([\d.]+)/g)].map(([, x, y]) => [
      +x,
      +y,
    ]);
    expect(places.length).toBe(11);
    const [x0, y0] = places[0];
    for (const [i, [x, y]] of places.entries()) {
      expect(x).toBeCloseTo(x0 + (i * (places[10][0] - x0)) / 10, 0);
      expect(y).toBeCloseTo(y0 + (i * (places[10][1] - y0)) / 10, 0);
    }
    expect(words(picture)).toContain("training 0");
    expect(
      words(lineChart({ ...base, cursor: 4, lines: [{ label: "training", color: 0, points }] })),
    ).toContain("training 6.000");
  });

  test("what is not a number, not positive on a logarithmic scale or outside is left out", () => {
    const odd: Point[] = [
      [1, Number.NaN],
      [2, -1],
      [3, 0],
      [4, Number.POSITIVE_INFINITY],
      [5, 2],
      [6, 3],
      [99, 1e9],
    ];
    const picture = lineChart({
      ...base,
      logarithmic: true,
      lines: [{ label: "norm", color: 0, points: odd }],
    });
    expect(String(all(picture, "path")[0].attributes.d).match(/[ML]/g)).toEqual(["M", "L"]);
    expect(markup(picture)).not.toMatch(/NaN|Infinity/);
    expect(words(lineChart({ ...base, lines: [] }))).toEqual(["nothing yet"]);
  });

  test("many points share places: means of neighbours, all of the same weight", () => {
    const many: Point[] = Array.from({ length: 10_000 }, (_, x) => [x, x % 7]);
    const few = thinned(many, 100);
    expect(few.length).toBe(100);
    expect(few[0]).toEqual([49.5, many.slice(0, 100).reduce((sum, [, y]) => sum + y, 0) / 100]);
    expect(thinned(points)).toBe(points);
    expect(valueAt(points, 3.5)).toBe(7);
    expect(valueAt(points, -1)).toBeUndefined();
  });

  test("one spike of a band does not flatten the rest", () => {
    const spiky: Point[] = Array.from({ length: 300 }, (_, x) => [x / 30, x === 150 ? 1e6 : 1 + (x % 2)]);
    const picture = lineChart({ ...base, lines: [{ label: "norm", color: 0, points: spiky, look: "band" }] });
    expect(words(picture).filter((word) => /k|M/.test(word))).toEqual([]);
  });

  test("digits", () => {
    expect([0, 0.00012, 0.5, 3.1419, 12345.6].map(digits)).toEqual([
      "0",
      "1.20e-4",
      "0.5000",
      "3.142",
      "12346",
    ]);
  });
});

test("a heat map: neighbours of one shade are one piece, the darkest is the most, values beside the rows", () => {
  const picture = heatMap({
    label: "zeros",
    rows: [
      { name: "a", values: [0, 0, 0, 10] },
      { name: "b", values: [undefined, 5, 5, 5] },
    ],
    steps: [10, 20, 30, 40],
    width: 400,
    from: 0,
    to: 40,
    text: (value) => `${value} %`,
  });
  const cells = all(picture, "rect").filter(({ attributes }) => Number(attributes.y) > 10);
  expect(cells.map(({ attributes }) => attributes["fill-opacity"])).toEqual([1, 0.5]);
  expect(cells[1].attributes.width).toBeCloseTo(3 * Number(cells[0].attributes.width), 0);
  expect(words(picture).filter((word) => word.includes("%"))).toEqual(["0 %", "10 %", "10 %", "5 %"]);
});

test("a histogram: heights as counts, the highest at the top", () => {
  const picture = histogram({
    title: "W",
    counts: [1, 4, 2],
    before: [0, 0, 7],
    low: -3,
    high: 3,
    width: 158,
  });
  const [bars, outline] = all(picture, "path").map(({ attributes }) => String(attributes.d));
  const heights = (d: string) => [...d.matchAll(/V([\d.]+)H/g)].map(([, y]) => 80 - Number(y));
  expect(heights(bars)).toEqual([15, 60, 30]);
  expect(heights(outline)).toEqual([0, 0, 60]);
});

test("no text of a picture becomes markup", () => {
  const evil = `"><script>alert('&')</script>`;
  expect(markup(draw("text", { title: evil }, evil))).toBe(
    `<text title="&quot;&gt;&lt;script&gt;alert('&amp;')&lt;/script&gt;">&quot;&gt;&lt;script&gt;alert('&amp;')&lt;/script&gt;</text>`,
  );
  expect(
    path([
      [0, 0],
      [1.23, 4.56],
      [Number.NaN, 0],
      [2, 2],
    ]),
  ).toBe("M0 0L1.2 4.6M2 2");
});
