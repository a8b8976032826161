/** A weight read bit by bit from the documented layout. */
export function weightAt(
  bytes: Uint8Array,
  scale: number,
  bits: number,
  cols: number,
  r: number,
  c: number,
): number {
  const tile = Math.floor(r / 16) * (cols / 16) + Math.floor(c / 16);
  const t = (r % 16) * 16 + (c % 16);
  let state = 0;
  for (let i = 0; i < 12; i++) {
    const bit = (t * bits + i) % (256 * bits);
    state += ((bytes[tile * 32 * bits + (bit >> 3)] >> (bit & 7)) & 1) * 2 ** i;
  }
  const x = Number((34038481n * BigInt(state) + 76625530n) % 2n ** 32n);
  const sum =
    (x % 256) + (Math.floor(x / 256) % 256) + (Math.floor(x / 65536) % 256) + Math.floor(x / 2 ** 24);
  return Math.fround(scale * Math.fround((sum - 510) * Math.fround(1 / 147.8005)));
}
