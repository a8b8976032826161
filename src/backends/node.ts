/** Whether this runs in Node, or in what offers its modules the same way. */
export function isNode(): boolean {
  return typeof process !== "undefined" && typeof process.getBuiltinModule === "function";
}
