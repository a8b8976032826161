/**
 * An independent reading of llama2.c's files and an independent LLaMA forward
 * pass in 64-bit floats, for judging ours: it shares no line with src/.
 *
 * File layout: karpathy/llama2.c, run.c (checkpoint_init_weights) and
 * tokenizer.py (export). Everything is written for being read, not for speed.
 */
import { readFileSync } from "node:fs";

export interface DoubleModel {
  readonly dim: number;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly vocabulary: number;
  readonly context: number;
  /** Each matrix (out, in), row-major; index by layer where there are several. */
  readonly embedding: Float64Array;
  readonly head: Float64Array;
  readonly finalNorm: Float64Array;
  readonly attentionNorm: readonly Float64Array[];
  readonly wq: readonly Float64Array[];
  readonly wk: readonly Float64Array[];
  readonly wv: readonly Float64Array[];
  readonly wo: readonly Float64Array[];
  readonly ffnNorm: readonly Float64Array[];
  readonly w1: readonly Float64Array[];
  readonly w2: readonly Float64Array[];
  readonly w3: readonly Float64Array[];
}

/** Reads a legacy checkpoint: seven int32, then float32 tensors. */
export function readDoubleModel(path: string): DoubleModel {
  const file = readFileSync(path);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const header = Array.from({ length: 7 }, (_, i) => view.getInt32(4 * i, true));
  const [dim, hidden, layers, heads, kvHeads, signedVocabulary, context] = header;
  const vocabulary = Math.abs(signedVocabulary);
  const kvDim = (dim / heads) * kvHeads;
  let at = 28;
  const take = (count: number) => {
    const values = new Float64Array(count);
    for (let i = 0; i < count; i++, at += 4) values[i] = view.getFloat32(at, true);
    return values;
  };
  const each = (count: number) => Array.from({ length: layers }, () => take(count));
  const embedding = take(vocabulary * dim);
  const attentionNorm = each(dim);
  const wq = each(dim * dim);
  const wk = each(kvDim * dim);
  const wv = each(kvDim * dim);
  const wo = each(dim * dim);
  const ffnNorm = each(dim);
  const w1 = each(hidden * dim);
  const w2 = each(dim * hidden);
  const w3 = each(hidden * dim);
  const finalNorm = take(dim);
  at += 4 * context * (dim / heads); // two tables of rotary positions that nobody uses
  const head = signedVocabulary > 0 ? embedding : take(vocabulary * dim);
  if (at !== file.byteLength) throw new Error(`double: read ${at} of ${file.byteLength} bytes`);
  const sizes = { dim, hidden, layers, heads, kvHeads, vocabulary, context };
  return { ...sizes, embedding, head, finalNorm, attentionNorm, wq, wk, wv, wo, ffnNorm, w1, w2, w3 };
}

/** Logits after each token of a sequence. */
export function doubleLogits(model: DoubleModel, ids: readonly number[]): Float64Array[] {
  const { dim, hidden, layers, heads, kvHeads, vocabulary } = model;
  const headDim = dim / heads;
  const kvDim = headDim * kvHeads;
  const keys: Float64Array[][] = Array.from({ length: layers }, () => []);
  const values: Float64Array[][] = Array.from({ length: layers }, () => []);

  return ids.map((id, position) => {
    const x = model.embedding.slice(id * dim, (id + 1) * dim);
    for (let layer = 0; layer < layers; layer++) {
      const n = normed(x, model.attentionNorm[layer]);
      const q = times(model.wq[layer], n, dim);
      const k = times(model.wk[layer], n, kvDim);
      rotate(q, position, headDim);
      rotate(k, position, headDim);
      keys[layer].push(k);
      values[layer].push(times(model.wv[layer], n, kvDim));

      const mixed = new Float64Array(dim);
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor((h * kvHeads) / heads) * headDim;
        const scores = keys[layer].map((key) => {
          let score = 0;
          for (let i = 0; i < headDim; i++) score += q[h * headDim + i] * key[shared + i];
          return score / Math.sqrt(headDim);
        });
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((a, b) => a + b);
        weights.forEach((weight, t) => {
          for (let i = 0; i < headDim; i++) {
            mixed[h * headDim + i] += (weight / total) * values[layer][t][shared + i];
          }
        });
      }
      addTo(x, times(model.wo[layer], mixed, dim));

      const m = normed(x, model.ffnNorm[layer]);
      const gate = times(model.w1[layer], m, hidden);
      const up = times(model.w3[layer], m, hidden);
      const gated = gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]);
      addTo(x, times(model.w2[layer], gated, dim));
    }
    return times(model.head, normed(x, model.finalNorm), vocabulary);
  });
}

/** Sum of −ln p over the tokens after the first, nats. */
export function doubleLoss(model: DoubleModel, ids: readonly number[]): number {
  let sum = 0;
  doubleLogits(model, ids.slice(0, -1)).forEach((logits, t) => {
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const total = logits.reduce((a, b) => a + Math.exp(b - largest), 0);
    sum += largest + Math.log(total) - logits[ids[t + 1]];
  });
  return sum;
}

function times(matrix: Float64Array, x: Float64Array, rows: number): Float64Array {
  const y = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let c = 0; c < x.length; c++) sum += matrix[r * x.length + c] * x[c];
    y[r] = sum;
  }
  return y;
}

function normed(x: Float64Array, gain: Float64Array): Float64Array {
  const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, i) => (value / Math.sqrt(meanSquare + 1e-5)) * gain[i]);
}

/** Turns neighbours (0,1), (2,3), … of each head by position·10000^(−2i/headDim). */
function rotate(x: Float64Array, position: number, headDim: number): void {
  for (let i = 0; i < headDim; i += 2) {
    const angle = position * 10000 ** (-i / headDim);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    for (let j = i; j < x.length; j += headDim) {
      const [a, b] = [x[j], x[j + 1]];
      x[j] = a * cos - b * sin;
      x[j + 1] = a * sin + b * cos;
    }
  }
}

function addTo(x: Float64Array, y: Float64Array): void {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}

/** Reads a llama2.c tok*.bin; gives ids of a text, without start token. */
export function readTokBin(path: string, vocabulary: number): (text: string) => number[] {
  const file = readFileSync(path);
  const pieces: string[] = [];
  const scores: number[] = [];
  let at = 4; // after the longest token's length
  for (let id = 0; id < vocabulary; id++) {
    scores.push(file.readFloatLE(at));
    const length = file.readInt32LE(at + 4);
    pieces.push(file.toString("utf8", at + 8, at + 8 + length));
    at += 8 + length;
  }
  const idOf = new Map(pieces.map((piece, id) => [piece, id]));
  return (text) => {
    const ids: number[] = [];
    for (const character of ` ${text}`) {
      const id = idOf.get(character);
      if (id !== undefined) ids.push(id);
      else for (const byte of Buffer.from(character)) ids.push(byte + 3);
    }
    for (;;) {
      let best = -1;
      let bestId = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const id = idOf.get(pieces[ids[i]] + pieces[ids[i + 1]]);
        if (id !== undefined && (best < 0 || scores[id] > scores[bestId])) [best, bestId] = [i, id];
      }
      if (best < 0) return ids;
      ids.splice(best, 2, bestId);
    }
  };
}

/**
 * Reads a character-level SentencePiece .vocab text: piece TAB score per line,
 * the line's number is the id. Runs of spaces become one; a run of characters
 * that it does not hold, such as line ends, becomes one unknown token, id 0.
 */
export function readCharacterVocabulary(path: string): (text: string) => number[] {
  const lines = readFileSync(path, "utf8").split("\n");
  const idOf = new Map(lines.map((line, id) => [line.split("\t")[0], id]));
  return (text) => {
    const escaped = ` ${text}`.replaceAll(/ +/g, "▁");
    const ids = Array.from(escaped, (character) => idOf.get(character) ?? 0);
    return ids.filter((id, i) => id !== 0 || ids[i - 1] !== 0);
  };
}
