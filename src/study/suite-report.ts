import { differenceText } from "../evaluation/words.ts";
import { escaped } from "../pictures/svg.ts";
import type { Record } from "../record/record.ts";
import type { Ablation, Cell, Fit, Gap } from "./analysis.ts";
import type { Claim } from "./claims.ts";
import { htmlTable, page } from "./page.ts";
import type { Estimated } from "./replicates.ts";
import { bitsChart, type Curve, curvesChart, gapChart, sizeChart } from "./suite-charts.ts";

/** What a study found; everything in its tables and pictures is drawn from here. */
export interface Findings {
  readonly cells: readonly Cell[];
  readonly gaps: readonly Gap[];
  readonly fits: readonly Fit[];
  readonly claims: readonly Claim[];
  readonly ablation?: Ablation;
  readonly curves: readonly Curve[];
  /** What was measured and what the intervals are, in sentences. */
  readonly protocol: readonly string[];
}

/** A table with what stands above and below it. */
export interface Section {
  readonly title: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly note: string;
  /** Sentences, not numbers. */
  readonly words?: true;
  /** What stands behind another table. */
  readonly detail?: true;
}

const plain = ({ value, low, high }: Estimated, digits = 4) =>
  `${value.toFixed(digits)} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
const precise = ({ value, low, high }: Estimated) =>
  `${value.toPrecision(3)} [${low.toPrecision(3)}, ${high.toPrecision(3)}]`;
const million = (n: number) => `${(n / 1e6).toPrecision(3)}M`;
const signedText = ({ value, low, high }: Estimated) => differenceText(value, low, high);

/** The tables of a study, the same on the terminal, in the page and in Markdown; those without rows are left out. */
export function sections({ cells, gaps, fits, claims, ablation }: Findings): Section[] {
  const all: Section[] = [
    {
      title: "The models",
      header: ["family", "size", "N", "linear", "format", "models", "bits", "bytes on disk", "loss [95 %]"],
      rows: cells.map((cell) => [
        cell.family,
        cell.size,
        million(cell.N),
        million(cell.linear),
        cell.format,
        String(cell.models),
        million(cell.bits),
        Math.round(cell.bytes).toLocaleString("en-US"),
        plain(cell.loss),
      ]),
      note: "Bits are Spectra's own accounting, 16·(embedding + head) + b·linear with b = 16, 8, 6, 4.25, 3.25, 1.58, 1; bytes are those of the weights' files, everything counted. Loss in nats per token of the model as it is stored.",
    },
    {
      title: "Gaps at equal size",
      header: ["difference", "size", "N", "loss [95 %]"],
      rows: gaps.map((gap) => [`${gap.of} − ${gap.against}`, gap.size, million(gap.N), signedText(gap)]),
      note: "Nats per token, paired: the same text, and the same first weights and batches where the seeds are equal.",
    },
    {
      title: "L(N) = A·N^−α + E",
      header: ["family", "N counts", "sizes", "A", "α", "E", "rms"],
      rows: fits.map((fit) => [
        fit.family,
        fit.by === "total" ? "all" : "linear layers",
        String(fit.sizes),
        precise(fit.A),
        plain(fit.alpha, 3),
        fit.offset ? `${plain(fit.E, 3)}${fit.identified ? "" : ", E not identified"}` : "0, without offset",
        fit.rms.toFixed(4),
      ]),
      note: "Least squares over the sizes; E is not identified when its interval includes 0, when there are no more sizes than parameters, or when more than 2.5 % of the resampled fits end at a bound. The laws say nothing about sizes outside of those measured.",
    },
    {
      title: "What Spectra claims",
      header: ["", "answer", "claim", "why", "in the paper"],
      rows: claims.map(({ claim, answer, reason, source }, i) => [
        String(i + 1),
        answer,
        claim,
        reason,
        source,
      ]),
      words: true,
      note: "Each with its rule in src/study/claims.ts. “holds”: the 95 % intervals at all places agree with it; “does not hold”: at some place an interval of 1 − 0.05/m, for m places, contradicts it.",
    },
  ];
  if (ablation) {
    all.push(
      {
        title: "The schedule's two interventions",
        header: ["schedule", ...ablation.seeds.map((seed) => `seed ${seed}`), "mean"],
        rows: ablation.combinations.map(({ name, losses, mean }) => [
          name,
          ...losses.map((loss) => loss.toFixed(4)),
          mean.toFixed(4),
        ]),
        note: "Final loss of TriLM with the peak rate lowered at half of the run (drop), weight decay removed at two thirds (removal), both, and neither.",
      },
      {
        title: "Differences of the schedules, paired by seed",
        header: ["difference", "loss [95 %]"],
        rows: ablation.differences.map(({ of, against, mean, low, high }) => [
          `${of} − ${against}`,
          differenceText(mean, low, high),
        ]),
        note: "Student's intervals over the seeds; they hold for this text and this size.",
      },
    );
  }
  all.push({
    title: "The statistics behind the answers",
    header: ["claim", "at", "value [95 %]"],
    rows: claims.flatMap(({ evidence }, i) =>
      evidence.map((place) => [String(i + 1), place.at, signedText(place)]),
    ),
    note: "Nats per token where nothing else is said.",
    detail: true,
  });
  return all.filter(({ rows }) => rows.length > 0);
}

/** A picture of a study, and the file that it is also written to. */
export interface Picture {
  readonly file: string;
  readonly title: string;
  readonly note: string;
  /** A sentence where no library that draws is installed. */
  readonly svg: string;
}

/** The pictures of a study; those of nothing are left out. */
export async function suitePictures({ cells, fits, gaps, curves }: Findings): Promise<Picture[]> {
  const all = [
    {
      file: "bits.svg",
      title: "Loss against bits",
      note: "Bars are 95 % intervals of each loss; most of it moves all models together, and the differences in the tables are known better.",
      of: cells,
      draw: () => bitsChart(cells),
    },
    {
      file: "parameters.svg",
      title: "Loss against parameters",
      note: "Lines are the fitted laws with offset, within the sizes that were measured.",
      of: cells,
      draw: () => sizeChart(cells, fits),
    },
    {
      file: "gaps.svg",
      title: "Gaps against parameters",
      note: "95 % intervals, paired.",
      of: gaps,
      draw: () => gapChart(gaps),
    },
    {
      file: "curves.svg",
      title: "Learning curves",
      note: "Loss over windows of the held-out text, of the weights as the layers see them.",
      of: curves,
      draw: () => curvesChart(curves),
    },
  ];
  const drawn: Picture[] = [];
  for (const { of, draw, ...picture } of all) {
    if (of.length > 0) drawn.push({ ...picture, svg: await draw() });
  }
  return drawn;
}

/** One HTML page that opens offline. */
export function suiteHtml(record: Record<Findings>, pictures: readonly Picture[]): string {
  let body = record.protocol.map((sentence) => `<p class="note">${escaped(sentence)}</p>`).join("\n");
  for (const { title, svg, note } of pictures) {
    body += `\n\n<h2>${title}</h2>\n<div class="wide">${svg}</div>\n<p class="note">${escaped(note)}</p>`;
  }
  for (const { title, header, rows, note, words } of sections(record)) {
    body += `\n\n<h2>${escaped(title)}</h2>\n${htmlTable(header, rows, { words })}\n<p class="note">${escaped(note)}</p>`;
  }
  return page("The Spectra suite", record, body);
}

/** The same for a document, which lies beside the files of its pictures. */
export function suiteMarkdown(findings: Findings, pictures: readonly Picture[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const line = (row: readonly string[]) => `| ${row.map(cell).join(" | ")} |`;
  const parts = sections(findings).map(({ title, header, rows, note }) =>
    [`## ${title}`, "", line(header), line(header.map(() => "---")), ...rows.map(line), "", note].join("\n"),
  );
  const shown = pictures.map(({ title, file, note }) => `## ${title}\n\n![${title}](${file})\n\n${note}`);
  return `# The Spectra suite\n\n${[findings.protocol.join("\n"), ...shown, ...parts].join("\n\n")}\n`;
}
