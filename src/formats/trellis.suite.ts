/** A weight of a matrix of so many rows, read bit by bit from the documented layout. */
export function weightAt(
  codes: { readonly bytes: Uint8Array; readonly shape: readonly number[] },
  scale: number,
  bits: number,
  rows: number,
  r: number,
  c: number,
): number {
  const length = codes.shape[0] / Math.max(1, Math.floor(rows / 256));
  const first = Math.floor(r / length) * length;
  let state = 0;
  for (let i = 0; i < 14; i++) {
    const line = first + ((r - first + Math.floor(i / bits)) % length);
    const bit = c * bits + (i % bits);
    state += ((codes.bytes[line * codes.shape[1] + (bit >> 3)] >> (bit & 7)) & 1) * 2 ** i;
  }
  const x = Number((34038481n * BigInt(state) + 76625530n) % 2n ** 32n);
  const sum =
    (x % 256) + (Math.floor(x / 256) % 256) + (Math.floor(x / 65536) % 256) + Math.floor(x / 2 ** 24);
  return Math.fround(scale * Math.fround((sum - 510) * Math.fround(1 / 147.8005)));
}
