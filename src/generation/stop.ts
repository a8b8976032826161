/**
 * Lets text through until one of several texts comes, of which nothing is ever
 * shown: what may become one of them is held back until it is known. Of two that
 * come at once the one that ends first counts, so that it does not matter in
 * which pieces the text comes.
 */
export class StopTexts {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** The text that can be shown, and whether it ends here. */
  push(text: string): { readonly text: string; readonly stopped: boolean } {
    const all = this.#held + text;
    let at = -1;
    let end = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const from = all.indexOf(stop);
      const to = from + stop.length;
      if (from < 0 || to > end || (to === end && from > at)) continue;
      at = from;
      end = to;
    }
    if (at >= 0) {
      this.#held = "";
      return { text: all.slice(0, at), stopped: true };
    }
    const shown = all.length - this.#mayBegin(all);
    this.#held = all.slice(shown);
    return { text: all.slice(0, shown), stopped: false };
  }

  /** What was held back when the text ends otherwise. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Length of the longest end of the text that one of the texts begins with. */
  #mayBegin(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
