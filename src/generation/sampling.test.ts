import { describe, expect, test } from "vitest";
import { generator } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { greedy, race } from "./candidates.ts";
import { repetitions } from "./dry.ts";
import { candidates, checkSampling, Sampler, type SamplingOptions } from "./sampling.ts";

const kept = (logits: number[], options: SamplingOptions) => {
  const { ids, weights } = candidates(Float32Array.from(logits), options);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Array.from(ids, (id, n) => ({ id, probability: weights[n] / total }));
};
const ids = (logits: number[], options: SamplingOptions) => kept(logits, options).map(({ id }) => id);

// Probabilities 0.1, 0.4, 0.2, 0.3.
const four = [0.1, 0.4, 0.2, 0.3].map(Math.log);

/** Six tokens: letters a to e, and a line end. */
const letters = "abcde\n";
const tokenizer: Tokenizer = {
  vocabulary: 6,
  encode: (text) => Int32Array.from(text, (letter) => letters.indexOf(letter)),
  bytes: (id) => new TextEncoder().encode(letters[id]),
  decode: (list) => Array.from(list, (id) => letters[id]).join(""),
  piece: (id) => letters[id],
};
describe("candidates", () => {
  test("top-k keeps the k best, the lower id where they are equal", () => {
    expect(ids(four, { topK: 1 })).toEqual([1]);
    expect(ids(four, { topK: 2 })).toEqual([1, 3]);
    expect(ids(four, { topK: 9 })).toEqual([0, 1, 2, 3]);
    expect(ids([1, 2, 2, 2, 0], { topK: 2 })).toEqual([1, 2]);
    expect(ids([2, 5, 2, 2], { topK: 3 })).toEqual([0, 1, 2]);
  });

  test("top-p keeps the fewest whose probabilities reach p", () => {
    expect(ids(four, { topP: 0.39 })).toEqual([1]);
    expect(ids(four, { topP: 0.41 })).toEqual([1, 3]);
    expect(ids(four, { topP: 0.69 })).toEqual([1, 3]);
    expect(ids(four, { topP: 0.71 })).toEqual([1, 2, 3]);
    expect(ids(four, { topP: 1 })).toEqual([0, 1, 2, 3]);
  });

  test("top-p counts within what top-k left", () => {
    // Of the two best, 0.4/0.7 = 0.571 and 0.3/0.7.
    expect(ids(four, { topK: 2, topP: 0.55 })).toEqual([1]);
    expect(ids(four, { topK: 2, topP: 0.58 })).toEqual([1, 3]);
  });

  test("min-p is relative to the best", () => {
    expect(ids(four, { minP: 0.74 })).toEqual([1, 3]);
    expect(ids(four, { minP: 0.76 })).toEqual([1]);
    expect(ids(four, { minP: 0.49 })).toEqual([1, 2, 3]);
  });

  test("temperature sharpens before the filters", () => {
    // At temperature 0.5: weights 1, 16, 4, 9 of 30.
    expect(ids(four, { temperature: 0.5, topP: 0.53 })).toEqual([1]);
    expect(kept(four, { temperature: 0.5 })[1].probability).toBeCloseTo(16 / 30, 6);
  });

  test("a token of probability zero is never kept by top-p", () => {
    expect(ids([0, -Infinity, 0], { topP: 0.999 })).toEqual([0, 2]);
  });

  test("typical keeps those whose surprise is nearest to the entropy", () => {
    // Probabilities 0.5, 0.25, 0.125, 0.125: surprises of 1, 2, 3 and 3 bits, entropy 1.75 bits,
    // distances 0.75, 0.25, 1.25 and 1.25 bits.
    const dyadic = [0.5, 0.25, 0.125, 0.125].map(Math.log);
    expect(ids(dyadic, { typical: 0.2 })).toEqual([1]);
    expect(ids(dyadic, { typical: 0.26 })).toEqual([0, 1]);
    expect(ids(dyadic, { typical: 0.76 })).toEqual([0, 1, 2]);
    expect(ids(dyadic, { typical: 0.88 })).toEqual([0, 1, 2, 3]);
    expect(ids([0, 3, Number.NEGATIVE_INFINITY], { typical: 0.9 })).toEqual([1]);
  });

  test("options that leave all leave every probability as it is", () => {
    const logits = Array.from({ length: 50 }, (_, n) => Math.sin(n) * 4);
    const none = kept(logits, {});
    expect(kept(logits, { typical: 1, topP: 1, minP: 0, topK: 0 })).toEqual(none);
    expect(kept(logits, { topK: 50 })).toEqual(none);
    expect(none.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 14);
  });

  test("top-k and top-p of many tokens are those of a sorted list, equal logits included", () => {
    const random = generator(3);
    for (let round = 0; round < 40; round++) {
      // Few different values, so that many are equal.
      const logits = Array.from({ length: 300 }, () => Math.floor(12 * random()) / 2);
      const sorted = logits
        .map((logit, id) => ({ logit, id }))
        .sort((a, b) => b.logit - a.logit || a.id - b.id);
      const k = 1 + Math.floor(300 * random());
      const best = sorted.slice(0, k).map(({ id }) => id);
      expect(ids(logits, { topK: k })).toEqual(best.sort((a, b) => a - b));
      const p = random();
      const weights = sorted.map(({ logit }) => Math.exp(logit));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      let count = 0;
      for (let sum = 0; sum < p * total; count++) sum += weights[count];
      const nucleus = sorted.slice(0, count).map(({ id }) => id);
      expect(ids(logits, { topP: p })).toEqual(nucleus.sort((a, b) => a - b));
    }
  });
});

describe("adjusted", () => {
  const sampler = (options: SamplingOptions, prompt: string) =>
    new Sampler(options, tokenizer, tokenizer.encode(prompt));
  const adjusted = (logits: number[], options: SamplingOptions, prompt: string) =>
    Array.from(sampler(options, prompt).adjusted(Float32Array.from(logits)));

  test("options that ask for nothing give the same array back", () => {
    const logits = Float32Array.of(1, 2, 3, 4, 5, 6);
    const none = {
      repetitionPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      dryMultiplier: 0,
      logitBias: [],
    };
    expect(sampler(none, "abcabc").adjusted(logits)).toBe(logits);
  });

  test("the repetition penalty divides above zero and multiplies below", () => {
    expect(adjusted([3, -3, 3, -3, 0, 0], { repetitionPenalty: 1.5 }, "aab")).toEqual([2, -4.5, 3, -3, 0, 0]);
  });

  test("presence counts once, frequency every time, after repetition", () => {
    expect(adjusted([3, 3, 3, 0, 0, 0], { presencePenalty: 0.5 }, "aab")).toEqual([2.5, 2.5, 3, 0, 0, 0]);
    expect(adjusted([3, 3, 3, 0, 0, 0], { frequencyPenalty: 0.5 }, "aab")).toEqual([2, 2.5, 3, 0, 0, 0]);
    const all = { repetitionPenalty: 2, presencePenalty: 1, frequencyPenalty: 0.25 };
    expect(adjusted([8, -8, 8, 0, 0, 0], all, "aab")).toEqual([2.5, -17.25, 8, 0, 0, 0]);
  });

  test("only the last tokens count, as the window says; going on and taking back moves it", () => {
    const options = { presencePenalty: 1, penaltyWindow: 2 };
    const zeros = new Float32Array(6);
    const one = sampler(options, "abc");
    expect([...one.adjusted(zeros)]).toEqual([0, -1, -1, 0, 0, 0]);
    one.push(3);
    one.push(3);
    expect([...one.adjusted(zeros)]).toEqual([0, 0, 0, -1, 0, 0]);
    one.rewind(2);
    expect([...one.adjusted(zeros)]).toEqual([0, -1, -1, 0, 0, 0]);
    expect(adjusted([0, 0, 0, 0, 0, 0], { ...options, penaltyWindow: 0 }, "abc")).toEqual([
      -1, -1, -1, 0, 0, 0,
    ]);
  });

  test("logit bias by id and by text adds up, and −infinity bans", () => {
    const logitBias = [
      [0, 2],
      ["ab", 1],
      ["c", Number.NEGATIVE_INFINITY],
    ] as const;
    expect(adjusted([0, 0, 9, 0, 0, 0], { logitBias }, "")).toEqual([
      3,
      1,
      Number.NEGATIVE_INFINITY,
      0,
      0,
      0,
    ]);
    expect(
      new Sampler({ logitBias, temperature: 0 }, tokenizer).draw(Float32Array.of(0, 0, 9, 0, 0, 0)),
    ).toBe(0);
    expect(() => new Sampler({ logitBias: [[6, 1]] }, tokenizer)).toThrow(
      "logit-bias of token 6, but the vocabulary has 0 to 5",
    );
    expect(() => new Sampler({ logitBias: [["", 1]] }, tokenizer)).toThrow("got an empty text");
  });

  // multiplier·base^(length − allowed) = 1·2^(length − 2)
  const dry = { dryMultiplier: 1, dryBase: 2 };
  const zeros = [0, 0, 0, 0, 0, 0];
  test.each([
    ["c goes on with ab, which is two tokens", "abcab", {}, [0, 0, -1, 0, 0, 0]],
    ["one token alone is allowed", "abca", {}, [0, 0, 0, 0, 0, 0]],
    ["the longest repetition counts", "abcdebcdabcd", {}, [-2, 0, 0, 0, -4, 0]],
    ["a run of one token is a repetition of itself", "aaaa", {}, [-2, 0, 0, 0, 0, 0]],
    ["a shorter one is allowed on request", "abcab", { dryAllowedLength: 3 }, zeros],
    ["a window may be too short to see it", "abcab", { dryWindow: 4 }, zeros],
    ["a repetition does not reach across a line end", "a\nbca\nb", {}, zeros],
    ["but may be behind one", "a\nbcdea\nbc", {}, [0, 0, 0, -1, 0, 0]],
    ["a breaker itself is not penalized", "ab\nab", {}, zeros],
    ["breakers of one's own, of several tokens", "abcdab", { dryBreakers: ["ab"] }, zeros],
    ["a breaker may be one's own end", "abcdab", { dryBreakers: ["b"] }, zeros],
    ["no breakers", "a\nbca\nb", { dryBreakers: [] }, [0, 0, -2, 0, 0, 0]],
  ] as const)("DRY: %s", (_, prompt, options, expected) => {
    expect(adjusted(zeros, { ...dry, ...options }, prompt)).toEqual(expected);
  });

  test("DRY finds in linear time what a search at every place finds", () => {
    const random = generator(4);
    for (let round = 0; round < 200; round++) {
      const history = Array.from({ length: 40 }, () => Math.floor(3 * random()));
      const expected = new Map<number, number>();
      for (let end = 1; end < history.length; end++) {
        let length = 0;
        while (length < end && history[end - 1 - length] === history[history.length - 1 - length]) length++;
        if (length > (expected.get(history[end]) ?? 0)) expected.set(history[end], length);
      }
      expect(repetitions(history, 0, 99)).toEqual(expected);
    }
    const long = new Array(200_000).fill(1); // quadratic would take minutes
    expect(repetitions(long, 0, 1e9).get(1)).toBe(199_999);
  });

  test("DRY takes back what it learned of breaks", () => {
    const one = sampler(dry, "abcab");
    one.push(5);
    expect([...one.adjusted(new Float32Array(6))]).toEqual(zeros);
    one.rewind(1);
    expect([...one.adjusted(new Float32Array(6))]).toEqual([0, 0, -1, 0, 0, 0]);
  });
});

describe("draw", () => {
  const draws = (options: SamplingOptions, count: number, seed: number, logits = four) => {
    const sampler = new Sampler(options, tokenizer, [], seed);
    const row = Float32Array.from(logits);
    return Array.from({ length: count }, () => {
      const id = sampler.draw(row);
      sampler.push(id);
      return id;
    });
  };

  test("temperature 0 is greedy, the lowest id of equals", () => {
    expect(draws({ temperature: 0 }, 1, 1, [1, 3, 3])).toEqual([1]);
    expect(greedy(Float32Array.of(2, 2))).toBe(0);
  });

  // Each with the distribution that the definition gives; the limit is exceeded once in a thousand.
  test.each([
    ["all", {}, [0.1, 0.4, 0.2, 0.3], 16.27],
    ["top-k 3", { topK: 3 }, [0, 4 / 9, 2 / 9, 3 / 9], 13.82],
    ["top-p 0.6", { topP: 0.6 }, [0, 4 / 7, 0, 3 / 7], 10.83],
    ["min-p 0.2 at temperature 0.5", { minP: 0.2, temperature: 0.5 }, [0, 16 / 29, 4 / 29, 9 / 29], 13.82],
    ["a bias of log 2", { logitBias: [[0, Math.log(2)]] }, [2 / 11, 4 / 11, 2 / 11, 3 / 11], 16.27],
  ] as const)("100,000 draws follow the distribution (chi-square): %s", (_, options, expected, limit) => {
    const counts = [0, 0, 0, 0];
    for (const id of draws(options, 100_000, 7)) counts[id]++;
    const chi = counts.reduce((sum, count, id) => {
      const mean = 100_000 * expected[id];
      if (mean === 0) return count === 0 ? sum : Number.POSITIVE_INFINITY;
      return sum + (count - mean) ** 2 / mean;
    }, 0);
    expect(chi).toBeLessThan(limit);
  });

  test("500 tokens of a large vocabulary come as often as they should (chi-square, 499 degrees of freedom)", () => {
    const logits = new Float32Array(100_000).fill(Number.NEGATIVE_INFINITY);
    for (let n = 0; n < 500; n++) logits[200 * n + 7] = Math.log(1 + (n % 5));
    const counts = new Map<number, number>();
    const weighed = candidates(logits, { minP: 0.1 });
    const random = generator(11);
    for (let n = 0; n < 150_000; n++) {
      const id = race(weighed, random());
      counts.set(id, (counts.get(id) ?? 0) + 1);
    }
    let chi = 0;
    for (let n = 0; n < 500; n++) {
      const mean = (150_000 * (1 + (n % 5))) / 1500;
      chi += ((counts.get(200 * n + 7) ?? 0) - mean) ** 2 / mean;
    }
    expect(chi).toBeLessThan(603); // exceeded once in a thousand
    expect(chi).toBeGreaterThan(407); // stayed below once in a thousand
  });

  test("alike distributions give the same token at least as often as Σ min/Σ max says", () => {
    const p = candidates(Float32Array.from(four), {});
    const q = candidates(Float32Array.from([0.15, 0.3, 0.35, 0.2].map(Math.log)), {});
    const random = generator(12);
    let same = 0;
    for (let n = 0; n < 20_000; n++) {
      const uniform = random();
      if (race(p, uniform) === race(q, uniform)) same++;
    }
    // Σ min = 0.8, Σ max = 1.2; no method can do better than 0.8.
    expect(same / 20_000).toBeGreaterThan(0.8 / 1.2);
    expect(same / 20_000).toBeLessThan(0.8);
  });

  test("what is drawn and taken back does not change what comes", () => {
    const straight = draws({}, 20, 9);
    const sampler = new Sampler({}, tokenizer, [], 9);
    const row = Float32Array.from(four);
    const again = Array.from({ length: 20 }, (_, n) => {
      for (let ahead = 0; ahead < n % 4; ahead++) sampler.push(sampler.draw(row));
      sampler.rewind(n % 4);
      const id = sampler.draw(row);
      sampler.push(id);
      return id;
    });
    expect(again).toEqual(straight);
  });

  test("logits that are not numbers are an error, not a token", () => {
    expect(() => draws({}, 1, 1, [NaN, NaN])).toThrow("logit of token 0 is NaN");
    expect(() => draws({ topK: 1 }, 1, 1, [1, NaN, 2])).toThrow("logit of token 1 is NaN");
  });
});

test.each([
  [{ temperature: -1 }, "temperature must be 0 or more, got -1"],
  [{ temperature: Infinity }, "temperature"],
  [{ topK: 1.5 }, "top-k must be a whole number from 0, got 1.5"],
  [{ topP: 0 }, "top-p must be above 0 and at most 1, got 0"],
  [{ minP: 2 }, "min-p must be from 0 to 1, got 2"],
  [{ typical: 0 }, "typical must be above 0 and at most 1, got 0"],
  [{ repetitionPenalty: 0 }, "repetition-penalty must be from 1e-30 to 1e30, got 0"],
  [{ presencePenalty: NaN }, "presence-penalty must be from −1e30 to 1e30, got NaN"],
  [{ frequencyPenalty: Infinity }, "frequency-penalty must be from −1e30 to 1e30, got Infinity"],
  [{ penaltyWindow: -1 }, "penalty-window must be a whole number from 0, got -1"],
  [{ dryMultiplier: -1 }, "dry-multiplier must be 0 or more, got -1"],
  [{ dryBase: 0.5 }, "dry-base must be 1 or more, got 0.5"],
  [{ dryAllowedLength: 0 }, "dry-allowed-length must be a whole number from 1, got 0"],
  [{ dryWindow: 0.5 }, "dry-window must be a whole number from 0, got 0.5"],
  [{ dryBreakers: [""] }, "dry-breaker"],
  [
    { logitBias: [["a", Infinity] as const] },
    'the bias of "a" must be a number up to 1e30 or −infinity, got Infinity',
  ],
])("%j is refused", (options, message) => {
  expect(() => checkSampling(options)).toThrow(message);
});
