/** The live page's script. What it is sent is shown as text and as numbers, never as markup. */
import type { Picture } from "../pictures/svg.ts";
import { duration } from "../record/words.ts";
import {
  eventsInWords,
  factsOf,
  flattened,
  histogramsOf,
  lastStep,
  type Panel,
  panelsOf,
  type Seen,
} from "../training/panels.ts";
import type { News } from "./watch.ts";

const EVERY_MS = 1500;
const LOST_MS = 4000;
/** A log that has not grown for so long may belong to a run that was stopped. */
const STILL_SECONDS = 60;

let news: Omit<News, "log" | "samples"> | undefined;
let log: News["log"] = [];
let samples: News["samples"] = [];
let cursor: number | undefined;

/** The canvas of each panel on the page, by the panel's id. */
const canvases = new Map<string, { readonly canvas: HTMLElement; panel: Panel }>();
const byId = (id: string) => document.getElementById(id)!;

async function ask(): Promise<void> {
  const known = new URLSearchParams({
    revision: news?.revision ?? "",
    log: String(log.at(-1)?.step ?? -1),
    samples: String(samples.at(-1)?.step ?? -1),
  });
  let wait = EVERY_MS;
  try {
    const response = await fetch(`/news?${known}`);
    if (!response.ok) throw new Error(String(response.status));
    const answer: News = await response.json();
    const isSame = answer.revision === news?.revision;
    log = isSame ? [...log, ...answer.log] : answer.log;
    samples = isSame ? [...samples, ...answer.samples] : answer.samples;
    const told = news?.events.length;
    const isNew =
      !isSame || answer.log.length > 0 || answer.samples.length > 0 || answer.events.length !== told;
    news = answer;
    if (isNew) show();
    showState();
    if (answer.more) wait = 0;
  } catch {
    wait = LOST_MS;
    const step = log.at(-1)?.step;
    byId("state").className = "lost";
    byId("state").textContent =
      `No answer${step === undefined ? "" : `; shown is everything up to step ${step}`}. ` +
      "The run has ended or was stopped; “lowbit watch FOLDER” shows it again.";
  }
  setTimeout(ask, wait);
}

function seen(): Seen {
  return { log, samples, events: news?.events, header: news?.header, clip: news?.clip };
}

function showState(): void {
  const { finished, idleSeconds = 0 } = news!;
  const state = byId("state");
  state.className = "";
  if (finished) {
    const link = document.createElement("a");
    link.href = "/report.html";
    link.textContent = "its report";
    if (state.querySelector("a")) return;
    state.replaceChildren("finished; ", link);
  } else if (log.length === 0) state.textContent = "no step is done yet";
  else if (idleSeconds > STILL_SECONDS)
    state.textContent = `not finished; no new step for ${duration(idleSeconds)}`;
  else state.textContent = "training";
}

function show(): void {
  const all = seen();
  const rows = factsOf(all).map(([name, value]) => {
    const row = document.createElement("div");
    row.append(text("dt", name), text("dd", value));
    return row;
  });
  byId("facts").replaceChildren(...rows);
  (byId("progress") as HTMLProgressElement).value = (log.at(-1)?.step ?? 0) / lastStep(all);
  const rowOf = ([name, value]: readonly [string, string]) => {
    const row = document.createElement("tr");
    row.append(text("td", name), text("td", value));
    return row;
  };
  const events = eventsInWords(all);
  byId("events").hidden = events.length === 0;
  byId("happened").replaceChildren(...events.map(rowOf));
  byId("recipe").replaceChildren(...flattened(news?.recipe).map(rowOf));
  const panels = panelsOf(all);
  for (const panel of panels) {
    const known = canvases.get(panel.id);
    if (known) known.panel = panel;
    else addPanel(panel);
  }
  const order = [...canvases.keys()];
  const isInOrder = order.length === panels.length && panels.every(({ id }, i) => order[i] === id);
  if (!isInOrder) reorder(panels);
  drawAll();
}

/** Puts the panels where they belong, and takes those away that are no more. */
function reorder(panels: readonly Panel[]): void {
  const kept = panels.map(({ id }) => [id, canvases.get(id)!] as const);
  byId("panels").replaceChildren(...kept.map(([, { canvas }]) => canvas.parentElement!));
  canvases.clear();
  for (const [id, entry] of kept) canvases.set(id, entry);
}

function addPanel(panel: Panel): void {
  const section = document.createElement("section");
  section.className = panel.wide ? "panel wide" : "panel";
  const canvas = document.createElement("div");
  canvas.className = "canvas";
  canvas.tabIndex = 0;
  section.append(text("h3", panel.title), canvas);
  if (panel.note) section.append(text("p", panel.note, "note"));
  byId("panels").append(section);
  canvases.set(panel.id, { canvas, panel });
  canvas.addEventListener("pointermove", (event) => pointAt(canvas, event.clientX));
  canvas.addEventListener("pointerleave", () => moveTo(undefined));
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") moveTo(undefined);
    if (way === undefined) return;
    event.preventDefault();
    const { from, to } = span();
    const jump = Math.max(1, Math.round((to - from) / 100));
    moveTo((cursor ?? log.at(-1)?.step ?? to) + way * jump);
  });
}

/** The step below a place of the screen: pictures say where their steps begin and end. */
function pointAt(canvas: HTMLElement, x: number): void {
  const svg = canvas.querySelector("svg");
  if (!svg?.dataset.steps) return; // nothing is drawn yet
  const { left, width } = svg.getBoundingClientRect();
  const { from, to } = span();
  const [first, last] = svg.dataset.steps.split(" ").map(Number);
  const inPicture = ((x - left) / width) * svg.viewBox.baseVal.width;
  moveTo(from + ((inPicture - first) / (last - first)) * (to - from));
}

function moveTo(step: number | undefined): void {
  const { from, to } = span();
  const last = Math.min(to, log.at(-1)?.step ?? to);
  cursor = step === undefined ? undefined : Math.round(Math.min(last, Math.max(from, step)));
  requestAnimationFrame(drawAll);
}

/** Steps shown: all that the run will have, or the last part of those done. */
function span(): { from: number; to: number } {
  const chosen = document.querySelector<HTMLInputElement>("input[name=span]:checked");
  const share = Number(chosen?.value ?? 1);
  const done = Math.max(1, log.at(-1)?.step ?? 1);
  return share === 1 ? { from: 0, to: lastStep(seen()) } : { from: Math.floor(done * (1 - share)), to: done };
}

function drawAll(): void {
  const view = { ...span(), cursor };
  for (const { canvas, panel } of canvases.values()) {
    const width = Math.max(260, canvas.clientWidth);
    canvas.replaceChildren(element(panel.draw({ ...view, width })));
  }
  byId("hint").textContent =
    cursor === undefined
      ? "Point at a picture, or move through its steps with ← and →, for the values at one step."
      : `Values at step ${cursor}; Esc returns to the last.`;
  const histograms = histogramsOf(seen(), 160, cursor);
  byId("weights").hidden = histograms.length === 0;
  const at = samples.findLast(({ step }) => step <= (cursor ?? Number.POSITIVE_INFINITY)) ?? samples[0];
  byId("when").textContent = at ? `after step ${at.step}` : "";
  byId("histograms").replaceChildren(...histograms.map(element));
}

/** A picture as elements. */
function element({ tag, attributes, children }: Picture): SVGElement {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children.map((child) => (typeof child === "string" ? child : element(child))));
  return made;
}

function text(tag: string, content: string, className = ""): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}

for (const input of document.querySelectorAll("input[name=span]")) {
  input.addEventListener("change", () => moveTo(undefined));
}
addEventListener("resize", () => requestAnimationFrame(drawAll));
void ask();
