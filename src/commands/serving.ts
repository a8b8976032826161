/** Where a page is, and that the port which was asked for is taken. */
export function servedAt(url: string, wanted: number | true): string {
  const { port } = new URL(url);
  const isOther = wanted !== true && wanted !== 0 && Number(port) !== wanted;
  return `watch: ${url}${isOther ? ` (port ${wanted} is taken)` : ""}`;
}
