/** How GPT-2 cuts a text into words; no merge crosses a cut (Radford et al., 2019, https://github.com/openai/gpt-2). */
const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/uy;

const SPACE = 32;
const APOSTROPHE = 39;
/** Classes of ASCII: of a run of one of the first three, perhaps behind a space, WORD makes a word. */
const [OTHER, LETTER, NUMBER, MARK, BLANK] = [0, 1, 2, 3, 4];
const CLASSES = Uint8Array.from({ length: 128 }, (_, code) => {
  const character = String.fromCharCode(code);
  if (/[A-Za-z]/.test(character)) return LETTER;
  if (/[0-9]/.test(character)) return NUMBER;
  if (/\s/.test(character)) return BLANK;
  return code > SPACE && code < 127 ? MARK : OTHER;
});

/** Where the word that begins at `from` ends; most are ASCII, and then no expression is needed. */
export function wordEnd(text: string, from: number): number {
  const first = text.charCodeAt(from);
  const begin = first === SPACE ? from + 1 : from;
  const kind = classAt(text, begin);
  if (kind !== OTHER && kind !== BLANK && first !== APOSTROPHE) {
    let end = begin + 1;
    while (classAt(text, end) === kind) end++;
    if (end >= text.length || classAt(text, end) !== OTHER) return end;
  }
  WORD.lastIndex = from;
  WORD.exec(text);
  return WORD.lastIndex;
}

function classAt(text: string, at: number): number {
  const code = text.charCodeAt(at); // NaN behind the end
  return code < 128 ? CLASSES[code] : OTHER;
}

/**
 * The different words of long texts, numbered from 0 in the order in which they
 * were met. They are kept as characters in one array: a string for each, cut
 * out of its text, would take ten times the memory or keep the text itself.
 */
export class WordTable {
  #characters = new Uint16Array(2 ** 16);
  /** Word w: characters[starts[w] … starts[w+1]−1]. */
  #starts = new Uint32Array(2 ** 12);
  /** Numbers of words, plus 1, at their hash or behind it. */
  #slots = new Uint32Array(2 ** 13);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Number of the word text[from…to), which may be a new one: then it is the size before. */
  add(text: string, from: number, to: number): number {
    let hash = 0;
    for (let i = from; i < to; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x9e3779b1);
    let slot = mixed(hash) & (this.#slots.length - 1);
    for (; this.#slots[slot] > 0; slot = (slot + 1) & (this.#slots.length - 1)) {
      const word = this.#slots[slot] - 1;
      if (this.#is(word, text, from, to)) return word;
    }
    const word = this.#size++;
    this.#slots[slot] = word + 1;
    const start = this.#starts[word];
    while (start + to - from > this.#characters.length)
      this.#characters = grown(this.#characters, new Uint16Array(2 * this.#characters.length));
    for (let i = from; i < to; i++) this.#characters[start + i - from] = text.charCodeAt(i);
    if (word + 2 > this.#starts.length)
      this.#starts = grown(this.#starts, new Uint32Array(2 * this.#starts.length));
    this.#starts[word + 1] = start + to - from;
    if (2 * this.#size > this.#slots.length) this.#rehash();
    return word;
  }

  text(word: number): string {
    let text = "";
    for (let i = this.#starts[word]; i < this.#starts[word + 1]; i++)
      text += String.fromCharCode(this.#characters[i]);
    return text;
  }

  clear(): void {
    this.#size = 0;
    this.#slots.fill(0);
  }

  #is(word: number, text: string, from: number, to: number): boolean {
    const start = this.#starts[word];
    if (this.#starts[word + 1] - start !== to - from) return false;
    for (let i = from; i < to; i++)
      if (this.#characters[start + i - from] !== text.charCodeAt(i)) return false;
    return true;
  }

  #rehash(): void {
    const slots = new Uint32Array(2 * this.#slots.length);
    for (let word = 0; word < this.#size; word++) {
      let hash = 0;
      for (let i = this.#starts[word]; i < this.#starts[word + 1]; i++)
        hash = Math.imul(hash ^ this.#characters[i], 0x9e3779b1);
      let slot = mixed(hash) & (slots.length - 1);
      while (slots[slot] > 0) slot = (slot + 1) & (slots.length - 1);
      slots[slot] = word + 1;
    }
    this.#slots = slots;
  }
}

/** Multiplication carries upwards alone; this brings the upper bits down (MurmurHash3's finalizer, Appleby, 2011). */
function mixed(hash: number): number {
  const half = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return half ^ (half >>> 13);
}

function grown<T extends Uint16Array | Uint32Array>(old: T, into: T): T {
  into.set(old);
  return into;
}
