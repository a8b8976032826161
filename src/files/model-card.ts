import type { Json, JsonObject } from "./file.ts";
import { isObject } from "./json.ts";

/**
 * A model card (README.md) from a model's record: what was done, with what,
 * and the numbers that came out. Lists stay in record.json.
 */
export function modelCard(config: JsonObject, record: object = {}): string {
  const {
    record: _,
    version: __,
    verb,
    options,
    models,
    data,
    environment,
    started,
    seconds,
    seed,
    ...result
  } = record as JsonObject;
  const made = typeof verb === "string" ? ` with \`lowbit ${verb}\`` : "";
  const on = typeof started === "string" ? ` on ${started.slice(0, 10)}` : "";
  const sections = [
    "---\nlibrary_name: lowbit\ntags:\n- lowbit\n---",
    `# ${typeof config.model_type === "string" ? config.model_type : "A"} model made by lowbit`,
    `Made${made}${on}. Open it with \`lowbit inspect FOLDER\`; \`record.json\` holds everything below and more.`,
    table("Made from", [...sources(models), ...sources(data)]),
    table("Options", [...scalars(options), ...scalars(seed === undefined ? {} : { seed })]),
    table("Numbers", [...scalars(result), ...scalars(seconds === undefined ? {} : { seconds })]),
    table("Environment", scalars(environment)),
  ];
  return `${sections.filter((section) => section !== "").join("\n\n")}\n`;
}

type Row = readonly [name: string, value: string];

function table(title: string, rows: readonly Row[]): string {
  if (rows.length === 0) return "";
  const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
  return [
    `## ${title}`,
    "",
    "| | |",
    "| --- | --- |",
    ...rows.map(([name, value]) => `| ${cell(name)} | ${cell(value)} |`),
  ].join("\n");
}

function sources(list: Json | undefined): Row[] {
  if (!Array.isArray(list)) return [];
  return list
    .filter(isObject)
    .map(({ name, bytes, sha256 }) => [String(name), `${bytes} bytes, SHA-256 \`${sha256}\``] as const);
}

/** Every number, word and yes or no in an object, by its path. */
function scalars(value: Json | undefined, path = ""): Row[] {
  if (isObject(value)) {
    return Object.entries(value).flatMap(([name, inner]) =>
      scalars(inner, path === "" ? name : `${path}.${name}`),
    );
  }
  if (value === undefined || value === null || typeof value === "object") return [];
  return [[path, String(value)]];
}
