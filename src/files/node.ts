/** Node's modules, asked for when they are used, so that a browser bundle of the package holds no import of them. */
export const fs = () => process.getBuiltinModule("node:fs/promises");
export const paths = () => process.getBuiltinModule("node:path");
