/** Whether a name is what a pattern says, in which `*` stands for any text. */
export function matchesPattern(name: string, pattern: string): boolean {
  const pieces = pattern.split("*").map((piece) => piece.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${pieces.join(".*")}$`).test(name);
}
