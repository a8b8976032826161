import { codesShape } from "../formats/codebook.ts";
import { decoderSizes, MOST_LAYERS } from "../formats/decoder.ts";
import { formatByName } from "../formats/index.ts";
import { InputError, naming, sizeOf } from "../tensor/tensor.ts";
import {
  type DecoderLayer,
  type Expression,
  listed,
  PART_BYTES,
  type Part,
  type PartType,
  packedWeight,
  partsOf,
  type Weight,
} from "../tensor/weight.ts";
import type { Json, JsonObject } from "./file.ts";
import { isObject, isShape } from "./json.ts";
import type { PartOutline } from "./safetensors.ts";

/**
 * What config.json says of the weights that are more than one plain array:
 *
 *   "quantization_config": {
 *     "quant_method": "lowbit", "version": 1,
 *     "weights": {
 *       NAME: { "format": "int4-g64", "shape": [256, 768] },
 *       NAME: { "kind": "sum", "shape": [256, 768], "terms": [ …, … ], "shared": { "terms.1.b.data": TENSOR } }
 *     }
 *   }
 *
 * An expression is a tree of the kinds of `tensor/weight.ts` with their own
 * words (terms, factors, a, b, book, latent, layers, of). Its parts are tensors of
 * the file: the part at PATH of weight NAME is `NAME.PATH` (`NAME.codes`,
 * `NAME.terms.0.scales`), unless `shared` says that another weight holds it.
 */
export const LOWBIT_VERSION = 1;

/** A weight without its bytes. */
export interface WeightOutline {
  readonly shape: readonly number[];
  /** As it stands in `weights`; undefined for a plain array, which needs no entry. */
  readonly entry?: JsonObject;
  /** The tensors that this weight itself stores, by their names in the file. */
  readonly parts: readonly PartOutline[];
}

/** Deeper trees than this are refused: a weight is a few kinds inside one another. */
const DEEPEST = 16;

/** Outline of a weight that does not exist yet: one packed part in a format, or a plain array (`f32`, `f16`, `bf16`). */
export function packedOutline(name: string, shape: readonly number[], format: string): WeightOutline {
  const parts = formatParts(name, shape, format);
  if (isPlain(format)) return { shape, parts: [{ ...parts[0], name }] };
  return {
    shape,
    entry: { format, shape },
    parts: parts.map((part) => ({ ...part, name: `${name}.${part.name}` })),
  };
}

/**
 * Outline of a weight at hand. `owners` remembers across calls which tensor
 * of the file holds a part, so that a part shared by weights is stored once.
 */
export function outlineOf(
  name: string,
  weight: Weight,
  owners: Map<Part, string> = new Map(),
): WeightOutline {
  const parts: PartOutline[] = [];
  const shared: Record<string, string> = {};
  for (const [path, part] of partsOf(weight)) {
    const owner = owners.get(part);
    if (owner !== undefined) shared[path] = owner;
    else {
      const stored = storedName(name, weight, path);
      owners.set(part, stored);
      parts.push({ name: stored, dtype: part.dtype, shape: part.shape });
    }
  }
  const isShared = Object.keys(shared).length > 0;
  if (weight.expression.kind === "packed" && isPlain(weight.expression.format) && !isShared) {
    return { shape: weight.shape, parts };
  }
  return { shape: weight.shape, entry: { ...entryOf(weight), ...(isShared ? { shared } : {}) }, parts };
}

/** The tensor that holds a weight's part when the weight owns it. */
export function storedName(name: string, weight: Weight, path: string): string {
  return weight.expression.kind === "packed" && isPlain(weight.expression.format) ? name : `${name}.${path}`;
}

function entryOf(weight: Weight): JsonObject {
  const { shape, expression: e } = weight;
  switch (e.kind) {
    case "packed":
      return { format: e.format, shape };
    case "sum":
      return { kind: e.kind, shape, terms: e.terms.map(entryOf) };
    case "product":
      return { kind: e.kind, shape, factors: e.factors.map(entryOf) };
    case "lowRank":
      return { kind: e.kind, shape, a: entryOf(e.a), b: entryOf(e.b) };
    case "codebook":
      return {
        kind: e.kind,
        shape,
        codeBits: e.codeBits,
        book: entryOf(e.book),
        ...(e.down ? { down: true } : {}),
      };
    case "decoder":
      return {
        kind: e.kind,
        shape,
        patch: e.patch,
        latent: entryOf(e.latent),
        layers: e.layers.map(({ kernel, stride, weights, biases }) => {
          return { kernel, stride, weights: entryOf(weights), biases: entryOf(biases) };
        }),
      };
    case "scaleRows":
    case "scaleColumns":
    case "signed":
    case "placeColumns":
      return { kind: e.kind, shape, of: entryOf(e.of) };
    case "permuteColumns": {
      const { shape: order } = e.order;
      return { kind: e.kind, shape, of: entryOf(e.of), ...(order.length === 2 ? { blocks: order[0] } : {}) };
    }
    case "scaleGroups":
      return { kind: e.kind, shape, scales: entryOf(e.scales), of: entryOf(e.of) };
    case "sign":
      return { kind: e.kind, shape };
    case "hadamard":
      return { kind: e.kind, shape, block: e.block };
  }
}

/** A plain array is one whose format is the element type of its only part. */
function isPlain(format: string): boolean {
  return Object.hasOwn(PART_BYTES, format);
}

/** The arrays that a format stores for a shape; leading axes count as rows. */
function formatParts(where: string, shape: readonly number[], format: string): readonly PartOutline[] {
  if (isPlain(format)) return [{ name: "data", dtype: format as PartType, shape }];
  const cols = shape.at(-1) ?? 1;
  const rows = cols === 0 ? 0 : sizeOf(shape) / cols;
  return naming(where, () => formatByName(format).parts(rows, cols));
}

/** How a stored weight is put together, checked once, before any of its bytes are read. */
export interface Assembly {
  readonly shape: readonly number[];
  /** Its format, or for an expression what it is made of: `sum(int4-g64, lowRank(f16, f16))`. */
  readonly format: string;
  /** The tensors of the file that it needs. */
  readonly stored: readonly string[];
  /** Those of them that are its own, not another weight's. */
  readonly owned: readonly string[];
  /** Puts the weight together; `read` gives a tensor of the file. */
  assemble(read: (stored: string) => Promise<Part>): Promise<Weight>;
}

/** What the container knows of a tensor without reading it. */
export type FindPart = (
  stored: string,
) => { readonly dtype: string; readonly shape: readonly number[] } | undefined;

/**
 * The assembly of an entry of `weights`. Every part must be in the file with
 * the type and shape that the format gives it, so that no kernel reads
 * outside of it later. Throws an InputError naming weight and part.
 */
export function assemblyOf(name: string, entry: Json, find: FindPart): Assembly {
  const shared = isObject(entry) && isObject(entry.shared) ? entry.shared : {};
  const stored: string[] = [];
  const owned: string[] = [];
  const node = walk(entry, "", 0);
  return { shape: node.shape, format: node.format, stored, owned, assemble: (read) => node.build(read) };

  function walk(json: Json | undefined, path: string, depth: number): Node {
    const where = `weight ${name}${path === "" ? "" : `, ${path.slice(0, -1)}`}`;
    if (!isObject(json) || !isShape(json.shape))
      throw new InputError(`${where}: needs an object with a shape`);
    if (depth > DEEPEST) throw new InputError(`${where}: nested deeper than ${DEEPEST}`);
    const shape = json.shape;
    const inner = (child: Json | undefined, step: string) => walk(child, `${path}${step}.`, depth + 1);
    const list = (children: Json | undefined, step: string) => {
      if (!Array.isArray(children) || children.length === 0)
        throw new InputError(`${where}: needs a list of ${step}`);
      return children.map((child, i) => inner(child, `${step}.${i}`));
    };
    /** A part at this node: checks it against what is needed and gives its name in the file. */
    const part = (step: string, needed: { dtype?: string; shape?: readonly number[]; elements?: number }) => {
      const at = path + step;
      const own =
        path === "" && typeof json.format === "string" && isPlain(json.format) ? name : `${name}.${at}`;
      const elsewhere = Object.hasOwn(shared, at) ? shared[at] : undefined;
      const place = typeof elsewhere === "string" ? elsewhere : own;
      const met = find(place);
      if (met === undefined) throw new InputError(`weight ${name}: its part ${place} is missing`);
      if (needed.dtype !== undefined && met.dtype !== needed.dtype) {
        throw new InputError(`weight ${name}: part ${place} must be ${needed.dtype}, is ${met.dtype}`);
      }
      if (needed.shape !== undefined && needed.shape.join() !== met.shape.join()) {
        throw new InputError(
          `weight ${name}: part ${place} must have shape ${text(needed.shape)}, has ${text(met.shape)}`,
        );
      }
      if (needed.elements !== undefined && needed.elements !== sizeOf(met.shape)) {
        throw new InputError(
          `weight ${name}: part ${place} must have ${needed.elements} elements, has ${sizeOf(met.shape)}`,
        );
      }
      stored.push(place);
      if (elsewhere === undefined) owned.push(place);
      return place;
    };
    const node = (format: string, expression: (read: ReadPart) => Promise<Expression>): Node => ({
      shape,
      format,
      build: async (read) => ({ shape, expression: await expression(read) }),
    });
    const fits = (child: Node, rows: number, cols: number, step: string) => {
      if (child.shape.length !== 2 || child.shape[0] !== rows || child.shape[1] !== cols) {
        throw new InputError(
          `${where}: its ${step} must have shape ${rows}×${cols}, has ${text(child.shape)}`,
        );
      }
      return child;
    };

    const kind = json.kind ?? "packed";
    if (kind === "packed") {
      const { format } = json;
      if (typeof format !== "string") throw new InputError(`${where}: needs a format`);
      const places = formatParts(where, shape, format).map(
        (spec) => [spec.name, part(spec.name, spec)] as const,
      );
      return {
        shape,
        format,
        build: async (read) => {
          const parts: Record<string, Part> = {};
          for (const [step, place] of places) parts[step] = await read(place);
          return packedWeight(shape, format, parts);
        },
      };
    }
    if (shape.length !== 2) throw new InputError(`${where}: a ${kind} is a matrix, met shape ${text(shape)}`);
    const [rows, cols] = shape;
    switch (kind) {
      case "sum": {
        const terms = list(json.terms, "terms").map((term) => fits(term, rows, cols, "terms"));
        return node(`sum(${formats(terms)})`, async (read) => ({ kind, terms: await build(terms, read) }));
      }
      case "product": {
        const factors = list(json.factors, "factors");
        const ends = [rows, ...factors.slice(0, -1).map((factor) => factor.shape.at(-1) ?? 0), cols];
        for (const [i, factor] of factors.entries()) fits(factor, ends[i], ends[i + 1], `factors.${i}`);
        return node(`product(${formats(factors)})`, async (read) => ({
          kind,
          factors: await build(factors, read),
        }));
      }
      case "lowRank": {
        const [a, b] = [inner(json.a, "a"), inner(json.b, "b")];
        const rank = b.shape[0] ?? 0;
        fits(a, rows, rank, "a");
        fits(b, rank, cols, "b");
        return node(`lowRank(${formats([a, b])})`, async (read) => ({
          kind,
          a: await a.build(read),
          b: await b.build(read),
        }));
      }
      case "codebook": {
        const book = inner(json.book, "book");
        const vector = book.shape[1] ?? 0;
        const { down = false } = json;
        if (typeof down !== "boolean") throw new InputError(`${where}: down must be true or left out`);
        const side = down ? rows : cols;
        if (book.shape.length !== 2 || vector === 0 || side % vector !== 0) {
          throw new InputError(
            `${where}: a book of shape ${text(book.shape)} cannot fill ${down ? "columns" : "rows"} of ${side}`,
          );
        }
        const { codeBits } = json;
        if (typeof codeBits !== "number" || !Number.isInteger(codeBits) || codeBits < 1 || codeBits > 16) {
          throw new InputError(`${where}: codeBits must be a whole number from 1 to 16`);
        }
        const [codeRows, perRow] = codesShape(rows, cols, vector, down);
        const codes = part("codes", { dtype: "u8", shape: [codeRows, Math.ceil((perRow * codeBits) / 8)] });
        return node(`codebook(${book.format})`, async (read) => ({
          kind,
          codes: await read(codes),
          codeBits,
          book: await book.build(read),
          ...(down ? { down } : {}),
        }));
      }
      case "decoder": {
        const { patch, layers: listed } = json;
        if (!Array.isArray(listed)) throw new InputError(`${where}: needs a list of layers`);
        const latent = inner(json.latent, "latent");
        const layers = listed.slice(0, MOST_LAYERS + 1).map((layer, i) => {
          if (!isObject(layer)) throw new InputError(`${where}: layers.${i} must be an object`);
          return {
            kernel: layer.kernel as number,
            stride: layer.stride as number,
            weights: inner(layer.weights, `layers.${i}.weights`),
            biases: inner(layer.biases, `layers.${i}.biases`),
          };
        });
        decoderSizes(where, shape, patch as number, latent, layers);
        const parts = [latent, ...layers.map(({ weights }) => weights)];
        return node(`decoder(${formats(parts)})`, async (read) => {
          const built: DecoderLayer[] = [];
          const images = await latent.build(read);
          for (const { kernel, stride, weights, biases } of layers)
            built.push({
              kernel,
              stride,
              weights: await weights.build(read),
              biases: await biases.build(read),
            });
          return { kind, patch: patch as number, latent: images, layers: built };
        });
      }
      case "scaleRows":
      case "scaleColumns": {
        const scales = part("scales", { elements: kind === "scaleRows" ? rows : cols });
        const of = fits(inner(json.of, "of"), rows, cols, "of");
        return node(`${kind}(${of.format})`, async (read) => ({
          kind,
          scales: await read(scales),
          of: await of.build(read),
        }));
      }
      case "scaleGroups": {
        const scales = inner(json.scales, "scales");
        const groups = scales.shape[1] ?? 0;
        if (scales.shape.length !== 2 || scales.shape[0] !== rows || groups === 0 || cols % groups !== 0) {
          throw new InputError(
            `${where}: scales of shape ${text(scales.shape)} do not divide ${rows}×${cols} into groups`,
          );
        }
        const of = fits(inner(json.of, "of"), rows, cols, "of");
        return node(`${kind}(${formats([scales, of])})`, async (read) => ({
          kind,
          scales: await scales.build(read),
          of: await of.build(read),
        }));
      }
      case "permuteColumns": {
        const { blocks = 1 } = json;
        if (typeof blocks !== "number" || !(blocks >= 1) || !Number.isInteger(rows / blocks))
          throw new InputError(`${where}: blocks must be a whole number that divides ${rows} rows`);
        const order = part("order", { elements: blocks * cols });
        const of = fits(inner(json.of, "of"), rows, cols, "of");
        return node(`${kind}(${of.format})`, async (read) => ({
          kind,
          order: await read(order),
          of: await of.build(read),
        }));
      }
      case "placeColumns": {
        const inside = inner(json.of, "of");
        const columns = inside.shape[1] ?? 0;
        const of = fits(inside, rows, columns, "of");
        const places = part("places", { elements: columns });
        return node(`${kind}(${of.format})`, async (read) => ({
          kind,
          places: await read(places),
          of: await of.build(read),
        }));
      }
      case "sign": {
        const bits = part("bits", { dtype: "u8", elements: rows * Math.ceil(cols / 8) });
        return node("sign", async (read) => ({ kind, bits: await read(bits) }));
      }
      case "signed": {
        const bits = part("bits", { dtype: "u8", elements: rows * Math.ceil(cols / 8) });
        const of = fits(inner(json.of, "of"), rows, cols, "of");
        return node(`signed(${of.format})`, async (read) => ({
          kind,
          bits: await read(bits),
          of: await of.build(read),
        }));
      }
      case "hadamard": {
        const { block } = json;
        const isPower = typeof block === "number" && Number.isInteger(Math.log2(block)) && block >= 1;
        if (!isPower || rows !== cols || cols % block !== 0) {
          throw new InputError(
            `${where}: a hadamard is square and of blocks of a power of two, met ${text(shape)} in blocks of ${JSON.stringify(block)}`,
          );
        }
        return node(kind, async () => ({ kind, block }));
      }
      default:
        throw new InputError(`${where}: kind ${JSON.stringify(kind)} is not known to this lowbit`);
    }
  }
}

type ReadPart = (stored: string) => Promise<Part>;

interface Node {
  readonly shape: readonly number[];
  readonly format: string;
  build(read: ReadPart): Promise<Weight>;
}

function formats(nodes: readonly Node[]): string {
  return listed(nodes.map((node) => node.format));
}

async function build(nodes: readonly Node[], read: ReadPart): Promise<Weight[]> {
  const weights: Weight[] = [];
  for (const node of nodes) weights.push(await node.build(read));
  return weights;
}

function text(shape: readonly number[]): string {
  return shape.length === 0 ? "()" : shape.join("×");
}
