import type { Progress } from "../record/record.ts";
import { duration, size } from "../record/words.ts";
import { cut, printable } from "./table.ts";

export { duration, size };

interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const WIDTH = 24;
// A terminal is redrawn ten times a second; a log file gets a line every ten seconds.
const REDRAW_MS = 100;
const LINE_MS = 10_000;

/** Draws one line for the work at hand: bar, count, rate, time left and the job's own note. */
export class ProgressBar {
  readonly #screen: Screen;
  readonly #now: () => number;
  #task = "";
  #started = 0;
  #from = 0;
  #last = 0;
  #drawn = Number.NEGATIVE_INFINITY;
  #visible = false;
  #ended = false;

  constructor(screen: Screen, now: () => number = () => performance.now()) {
    this.#screen = screen;
    this.#now = now;
  }

  show(progress: Progress): void {
    const now = this.#now();
    // Counting anew is another piece of work of the same kind: the next model to load.
    if (progress.task !== this.#task || progress.done < this.#last) {
      this.#task = progress.task;
      this.#started = now;
      this.#ended = false;
      // A resumed job starts at its checkpoint: rate and time left count from there.
      this.#from = progress.done;
      if (!this.#screen.isTTY) this.#drawn = now;
    }
    const ends = progress.done >= progress.total && !this.#ended;
    this.#last = progress.done;
    const wait = this.#screen.isTTY ? REDRAW_MS : LINE_MS;
    if (now - this.#drawn < wait && !ends) return;
    this.#ended = progress.done >= progress.total;
    this.#drawn = now;
    const line = printable(progressLine(progress, this.#from, (now - this.#started) / 1000));
    if (this.#screen.isTTY) {
      this.#screen.write(`\r\x1b[K${cut(line, (this.#screen.columns || 80) - 1)}`);
      this.#visible = true;
    } else if (now - this.#started >= LINE_MS) {
      this.#screen.write(`${line}\n`);
    }
  }

  /** Takes the line off the screen, for other text. */
  clear(): void {
    if (this.#visible) this.#screen.write("\r\x1b[K");
    this.#visible = false;
  }
}

/** `train ███░░░ 120/1465 steps  3.2 steps/s  7 min left  loss 4.21` */
export function progressLine(progress: Progress, from: number, seconds: number): string {
  const { task, done, total, unit, note } = progress;
  const share = total > 0 ? Math.min(1, done / total) : 0;
  const filled = Math.round(share * WIDTH);
  const bar = "█".repeat(filled) + "░".repeat(WIDTH - filled);
  const rate = seconds > 0 ? (done - from) / seconds : 0;
  const left = rate > 0 && done < total ? `  ${duration((total - done) / rate)} left` : "";
  const speed = rate > 0 ? `  ${unit === "bytes" ? size(rate) : `${short(rate)} ${unit}`}/s` : "";
  const count = unit === "bytes" ? `${size(done)}/${size(total)}` : `${short(done)}/${short(total)} ${unit}`;
  return `${task} ${bar} ${count}${speed}${left}${note ? `  ${note}` : ""}`;
}

function short(value: number): string {
  if (Number.isInteger(value) && value < 1e6) return String(value);
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  return value >= 1000 ? value.toFixed(0) : value.toPrecision(3);
}
