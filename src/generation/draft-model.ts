import type { Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import type { Drafter } from "./drafter.ts";
import { Session } from "./session.ts";

/**
 * Guesses with a smaller model of the same vocabulary, which draws with the
 * options and the random numbers of the text itself.
 *
 * Leviathan et al., 2023 (https://arxiv.org/abs/2211.17192), accept a guess x
 * with probability min(1, p(x)/q(x)) and draw from (p−q)⁺ otherwise. That leaves
 * the distribution as it is but not the text: it depends on the drafts. Here the
 * model draws from p with the number that the draft drew from q with (`race` in
 * candidates.ts), and the guess counts when both give the same token.
 * Distribution and text are those without a draft, whatever the draft; of guesses
 * a few percent fewer count (bundled float and trilm on stories: 70 % of the
 * first ones, where Σ min(p, q) is 76 %). `context` and `vocabulary` are those of the model.
 */
export function draftModel(
  running: Running,
  { context, vocabulary }: { readonly context: number; readonly vocabulary: number },
): Drafter {
  const session = new Session(running, context);
  return {
    async draft(sequence, most, sampler, job) {
      const room = Math.min(most, session.capacity - sequence.length + 1);
      const guesses: number[] = [];
      if (room < 1) return guesses;
      const pause = pauses(job);
      let logits = await session.start(Int32Array.from(sequence), job);
      try {
        for (;;) {
          await pause();
          const id = sampler.draw(logits);
          if (id >= vocabulary) return guesses; // of a padded head, which the model has not
          sampler.push(id);
          guesses.push(id);
          if (guesses.length === room) return guesses;
          logits = await session.next(Int32Array.of(id));
        }
      } finally {
        sampler.rewind(guesses.length);
      }
    },
    free: () => session.free(),
  };
}

/** Throws an InputError where the ids of a draft, or another model beside, do not mean what the model's mean. */
export function checkSameVocabulary(model: Tokenizer, draft: Tokenizer, who = "draft"): void {
  if (model.vocabulary !== draft.vocabulary) {
    throw new InputError(
      `${who}: has ${draft.vocabulary} tokens, the model ${model.vocabulary}; take a ${who} of the same vocabulary`,
    );
  }
  for (let id = 0; id < model.vocabulary; id++) {
    if (model.piece(id) === draft.piece(id)) continue;
    throw new InputError(
      `${who}: token ${id} is ${JSON.stringify(draft.piece(id))}, the model's is ${JSON.stringify(model.piece(id))}; ` +
        `take a ${who} of the same vocabulary`,
    );
  }
}
