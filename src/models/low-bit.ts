import type { Json } from "../files/file.ts";
import { type RoundingRule, roundingRules } from "../kernels/round-rows.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Activation, Activations, ModelConfig } from "./model.ts";

type Unknown = { readonly [key: string]: unknown };

/** The part of a config that only lowbit computes, as it stands under `lowbit` in a config.json. */
type LowBit = Pick<ModelConfig, "subNorm" | "outputNorm" | "activations" | "cacheRounding">;

const PLACES = ["attention", "attentionOutput", "ffn", "ffnOutput"] as const;

/** What stands under `lowbit` in a config.json; undefined for a plain model. */
export function lowBitJson(config: LowBit): Json | undefined {
  const { subNorm, outputNorm, activations, cacheRounding } = config;
  const places = PLACES.filter((place) => activations?.[place] !== undefined);
  const json = {
    ...(subNorm ? { sub_norm: true } : {}),
    ...(outputNorm ? { output_norm: true } : {}),
    ...(places.length > 0
      ? { activations: Object.fromEntries(places.map((place) => [place, { ...activations![place]! }])) }
      : {}),
    ...(cacheRounding ? { cache_rounding: { ...cacheRounding } } : {}),
  };
  return Object.keys(json).length > 0 ? json : undefined;
}

/** The inverse, for a model of these sizes; an InputError names what is unknown or out of range. */
export function readLowBit(
  json: unknown,
  { dim, heads, kvHeads, headDim, ffn }: Omit<ModelConfig, "architecture">,
): LowBit {
  if (json === undefined || json === null) return {};
  const given = keysOf(json, "lowbit", ["sub_norm", "output_norm", "activations", "cache_rounding"]);
  const widths = { attention: dim, attentionOutput: heads * headDim, ffn: dim, ffnOutput: ffn };
  const activations: { -readonly [P in keyof Activations]: Activations[P] } = {};
  const places =
    given.activations === undefined ? {} : keysOf(given.activations, "lowbit.activations", PLACES);
  for (const place of PLACES) {
    if (places[place] === undefined) continue;
    activations[place] = activationOf(places[place], `lowbit.activations.${place}`, widths[place]);
  }
  return {
    ...(flag(given, "sub_norm") ? { subNorm: true } : {}),
    ...(flag(given, "output_norm") ? { outputNorm: true } : {}),
    ...(Object.keys(activations).length > 0 ? { activations } : {}),
    ...(given.cache_rounding === undefined
      ? {}
      : { cacheRounding: activationOf(given.cache_rounding, "lowbit.cache_rounding", kvHeads * headDim) }),
  };
}

function activationOf(json: unknown, where: string, width: number): Activation {
  const { bits, rule, group, share, limit } = keysOf(json, where, [
    "bits",
    "rule",
    "group",
    "share",
    "limit",
  ]);
  const needs = (fits: boolean, key: string, what: string, met: unknown) => {
    if (!fits) throw new InputError(`config: ${where}.${key} must be ${what}, got ${JSON.stringify(met)}`);
  };
  const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);
  needs(
    isNumber(bits) && Number.isInteger(bits) && bits >= 2 && bits <= 16,
    "bits",
    "a whole number from 2 to 16",
    bits,
  );
  needs(roundingRules.includes(rule as RoundingRule), "rule", `one of ${roundingRules.join(", ")}`, rule);
  const optional = (value: unknown, fits: (value: number) => boolean) =>
    value === undefined || (isNumber(value) && fits(value));
  needs(
    optional(group, (g) => Number.isInteger(g) && g > 0 && width % g === 0),
    "group",
    `a divisor of ${width}`,
    group,
  );
  needs(
    optional(share, (s) => s > 0 && s <= 1),
    "share",
    "above 0 and at most 1",
    share,
  );
  needs(
    optional(limit, (l) => l > 0),
    "limit",
    "a positive number",
    limit,
  );
  return json as Activation;
}

function keysOf(json: unknown, where: string, known: readonly string[]): Unknown {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new InputError(`config: ${where} must be an object, got ${JSON.stringify(json)}`);
  }
  const unknown = Object.keys(json).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw new InputError(`config: ${where}.${unknown} is not supported; known: ${known.join(", ")}`);
  }
  return json as Unknown;
}

function flag(json: Unknown, key: string): boolean {
  const value = json[key] ?? false;
  if (typeof value !== "boolean") {
    throw new InputError(`config: lowbit.${key} must be true or false, got ${JSON.stringify(value)}`);
  }
  return value;
}
