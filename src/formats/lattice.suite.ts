/** The patterns of `e8p` by the words of its layout: numbers counted upward in base 3, then the 29 of norm² 12. */
export const e8pPatterns: readonly (readonly number[])[] = makePatterns();

function makePatterns(): number[][] {
  const digits = [0, 0, 0, 0, 0, 0, 0, 0];
  const found: number[][] = [];
  for (let n = 0; n < 6561; n++) {
    const p = digits.map((digit) => digit + 0.5);
    if (p.reduce((sum, x) => sum + x * x, 0) <= 10) found.push(p);
    for (let i = 0; i < 8 && ++digits[i] === 3; i++) digits[i] = 0;
  }
  const low: number[][] = [];
  for (let i = 0; i < 8; i++) {
    for (let j = i + 1; j < 8; j++) for (let k = j + 1; k < 8; k++) low.push([i, j, k]);
  }
  const chosen = low.filter((places) => (places[0] + places[1] + places[2]) % 2 === 0);
  for (const places of [...chosen, [0, 1, 2]]) {
    found.push(Array.from({ length: 8 }, (_, i) => (places.includes(i) ? 0.5 : 1.5)));
  }
  return found;
}

/** The point of a code of `e81b`. */
export function e81bPoint(code: number): number[] {
  const point = new Array<number>(8).fill(0);
  if (code < 128) {
    for (let i = 0; i < 7; i++) point[i] = (code >> i) & 1 ? -0.5 : 0.5;
    point[7] = point.slice(0, 7).filter((x) => x < 0).length % 2 === 0 ? 0.5 : -0.5;
    return point;
  }
  if (code > 240) {
    point[(code - 241) % 8] = code < 249 ? 2 : -2;
    return point;
  }
  let [pair, i, j] = [Math.floor((code - 128) / 4), 0, 1];
  if (code === 240) return point;
  for (; pair > 0; pair--) {
    j++;
    if (j === 8) [i, j] = [i + 1, i + 2];
  }
  point[i] = code & 1 ? -1 : 1;
  point[j] = code & 2 ? -1 : 1;
  return point;
}
