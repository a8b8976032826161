import { generator } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { type Candidates, greedy, minP, race, topK, topP, typical, weigh } from "./candidates.ts";
import { BREAKERS, Breaks, dryPenalty, repetitions } from "./dry.ts";
import { History, penalize } from "./penalties.ts";

/** How the next token is drawn. What is listed first works first; every default leaves the logits as they are. */
export interface SamplingOptions {
  /** Added to logits of tokens, by id or by text: every token that the text is encoded to; −infinity bans. */
  readonly logitBias?: readonly (readonly [token: number | string, bias: number])[];
  /** Divides logits above 0 of tokens seen lately, multiplies those below. Default 1: none. */
  readonly repetitionPenalty?: number;
  /** Subtracted from logits of tokens seen lately, however often. Default 0. */
  readonly presencePenalty?: number;
  /** Subtracted from logits of tokens seen lately, once for each time. Default 0. */
  readonly frequencyPenalty?: number;
  /** Tokens, of the prompt too, that these three penalties look back on; 0: all. Default 64. */
  readonly penaltyWindow?: number;
  /**
   * DRY, "don't repeat yourself": subtracts multiplier·base^(length − allowed length) from tokens that would
   * go on with a repetition of that length. Default 0: none. Of p-e-w, 2024
   * (https://github.com/oobabooga/textgen/pull/5677).
   */
  readonly dryMultiplier?: number;
  /** Default 1.75. */
  readonly dryBase?: number;
  /** Shortest repetition that going on with is penalized, in tokens. Default 2. */
  readonly dryAllowedLength?: number;
  /** Tokens, of the prompt too, that DRY looks back on; 0: all. Default 0. */
  readonly dryWindow?: number;
  /** Texts that a repetition never reaches across. Default: line end, colon, quotation mark, asterisk. */
  readonly dryBreakers?: readonly string[];
  /** Divides the logits; 0 takes the best token each time. Default 1. */
  readonly temperature?: number;
  /** Keeps the k best tokens; 0 keeps all. Default 0. */
  readonly topK?: number;
  /** Keeps the fewest tokens, of a surprise near the expected one, whose probabilities sum to at least this. Default 1: all. */
  readonly typical?: number;
  /** Keeps the fewest best tokens whose probabilities sum to at least this. Default 1: all. */
  readonly topP?: number;
  /** Keeps tokens at least this probable relative to the best one. Default 0: all. */
  readonly minP?: number;
}

/** Biases and penalties up to this leave float32 logits finite, however many come together. */
const MOST = 1e30;

/** Throws an InputError that names the option that is out of range. */
export function checkSampling(options: SamplingOptions): void {
  const need = (name: string, value: number | undefined, range: string, ok: (value: number) => boolean) => {
    if (value !== undefined && !ok(value))
      throw new InputError(`sampling: ${name} must be ${range}, got ${value}`);
  };
  const whole = (least: number) => (value: number) => Number.isSafeInteger(value) && value >= least;
  for (const [token, bias] of options.logitBias ?? []) {
    need(`the bias of ${JSON.stringify(token)}`, bias, "a number up to 1e30 or −infinity", (b) => b <= MOST);
  }
  const { repetitionPenalty, presencePenalty, frequencyPenalty, penaltyWindow } = options;
  need("repetition-penalty", repetitionPenalty, "from 1e-30 to 1e30", (r) => r >= 1 / MOST && r <= MOST);
  need("presence-penalty", presencePenalty, "from −1e30 to 1e30", (p) => Math.abs(p) <= MOST);
  need("frequency-penalty", frequencyPenalty, "from −1e30 to 1e30", (p) => Math.abs(p) <= MOST);
  need("penalty-window", penaltyWindow, "a whole number from 0", whole(0));
  need("dry-multiplier", options.dryMultiplier, "0 or more", (m) => m >= 0 && Number.isFinite(m));
  need("dry-base", options.dryBase, "1 or more", (b) => b >= 1 && Number.isFinite(b));
  need("dry-allowed-length", options.dryAllowedLength, "a whole number from 1", whole(1));
  need("dry-window", options.dryWindow, "a whole number from 0", whole(0));
  if (options.dryBreakers?.includes(""))
    throw new InputError("sampling: a dry-breaker must be a text, got none");
  need("temperature", options.temperature, "0 or more", (t) => t >= 0 && Number.isFinite(t));
  need("top-k", options.topK, "a whole number from 0", whole(0));
  need("typical", options.typical, "above 0 and at most 1", (t) => t > 0 && t <= 1);
  need("top-p", options.topP, "above 0 and at most 1", (p) => p > 0 && p <= 1);
  need("min-p", options.minP, "from 0 to 1", (p) => p >= 0 && p <= 1);
}

/** What temperature and filters leave of logits, on the softmax of logits/temperature. */
export function candidates(logits: Float32Array, options: SamplingOptions): Candidates {
  const { temperature = 1, topK: k = 0, typical: mass = 1, topP: p = 1, minP: share = 0 } = options;
  const ids = k > 0 && k < logits.length ? topK(logits, k) : undefined;
  return minP(topP(typical(weigh(logits, temperature, ids), mass), p), share);
}

/**
 * Draws the tokens of one text. The n-th token is drawn with the n-th number of
 * the seed's sequence, whatever was drawn and taken back in between: the same
 * seed gives the same text with and without speculation.
 */
export class Sampler {
  readonly #options: SamplingOptions;
  readonly #bias: ReadonlyMap<number, number>;
  readonly #history: History;
  readonly #breaks: Breaks;
  readonly #random: () => number;
  readonly #drawn: number[] = [];
  #position = 0;

  /** The prompt counts for penalties. Throws an InputError for options out of range and tokens that there are not. */
  constructor(options: SamplingOptions, tokenizer: Tokenizer, prompt: Iterable<number> = [], seed = 0) {
    checkSampling(options);
    this.#options = options;
    this.#bias = biases(options.logitBias ?? [], tokenizer);
    this.#history = new History(options.penaltyWindow ?? 64);
    this.#breaks = new Breaks(tokenizer, options.dryBreakers ?? BREAKERS);
    this.#random = generator(seed);
    for (const id of prompt) this.#remember(id);
  }

  /** The token at this place of the text; `push` it, or another, to go on. Leaves the logits as they are. */
  draw(logits: Float32Array): number {
    const adjusted = this.adjusted(logits);
    if (this.#options.temperature === 0) return greedy(adjusted);
    while (this.#drawn.length <= this.#position) this.#drawn.push(this.#random());
    return race(candidates(adjusted, this.#options), this.#drawn[this.#position]);
  }

  push(id: number): void {
    this.#remember(id);
    this.#position++;
  }

  /** Takes back the last tokens that were pushed. */
  rewind(tokens: number): void {
    for (let n = 0; n < tokens; n++) {
      this.#history.pop();
      if (this.#dry) this.#breaks.pop();
    }
    this.#position -= tokens;
  }

  get #dry(): boolean {
    return (this.#options.dryMultiplier ?? 0) > 0;
  }

  #remember(id: number): void {
    this.#history.push(id);
    if (this.#dry) this.#breaks.push(this.#history.ids);
  }

  /** Logits after biases and penalties at this place of the text; themselves where there are none. */
  adjusted(logits: Float32Array): Float32Array {
    const { repetitionPenalty = 1, presencePenalty = 0, frequencyPenalty = 0 } = this.#options;
    const penalties = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
    if (this.#bias.size === 0 && !penalties && !this.#dry) return logits;
    const adjusted = logits.slice();
    for (const [id, bias] of this.#bias) adjusted[id] += bias;
    if (penalties) {
      const amounts = {
        repetition: repetitionPenalty,
        presence: presencePenalty,
        frequency: frequencyPenalty,
      };
      penalize(this.#history.counts, amounts, adjusted);
    }
    if (this.#dry) this.#dryOut(adjusted);
    return adjusted;
  }

  #dryOut(logits: Float32Array): void {
    const { dryMultiplier = 0, dryBase = 1.75, dryAllowedLength = 2, dryWindow = 0 } = this.#options;
    const found = repetitions(this.#history.ids, dryWindow, this.#breaks.since);
    for (const [id, length] of found) {
      if (length < dryAllowedLength || this.#breaks.within(id)) continue;
      logits[id] -= dryPenalty(length, dryMultiplier, dryBase, dryAllowedLength);
    }
  }
}

/** Bias by id; those of one token add up. */
function biases(
  list: NonNullable<SamplingOptions["logitBias"]>,
  tokenizer: Tokenizer,
): ReadonlyMap<number, number> {
  const found = new Map<number, number>();
  for (const [token, bias] of list) {
    const ids = typeof token === "number" ? [token] : tokenizer.encode(token);
    if (ids.length === 0) throw new InputError("sampling: logit-bias needs a token, got an empty text");
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= tokenizer.vocabulary) {
        throw new InputError(
          `sampling: logit-bias of token ${id}, but the vocabulary has 0 to ${tokenizer.vocabulary - 1}`,
        );
      }
      found.set(id, (found.get(id) ?? 0) + bias);
    }
  }
  return found;
}
