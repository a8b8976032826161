import { escaped } from "../pictures/svg.ts";

/** The live page before its script has drawn anything. */
export function pageHtml(name: string, extension: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(name)}: training</title>
<link rel="stylesheet" href="/style.css">
<link rel="icon" href="data:,">
<script type="module" src="/server/client${extension}"></script>
</head>
<body>
<header>
<h1>${escaped(name)}</h1>
<p id="state" role="status">connecting …</p>
<progress id="progress" max="1" value="0" aria-label="steps done"></progress>
</header>
<dl class="facts" id="facts"></dl>
<div class="bar">
<fieldset><legend>Steps shown</legend>
<label><input type="radio" name="span" value="1" checked> all</label>
<label><input type="radio" name="span" value="0.5"> last half</label>
<label><input type="radio" name="span" value="0.1"> last tenth</label>
</fieldset>
<p class="note" id="hint" aria-live="polite"></p>
</div>
<section id="events" hidden>
<h2>What happened</h2>
<table id="happened"></table>
</section>
<main class="panels" id="panels"></main>
<section id="weights" hidden>
<h2>Weights</h2>
<p class="note">Trained weights divided by the scale of their row, w/γ, <span id="when"></span>; outlined as they were before the first step.</p>
<div class="histograms" id="histograms"></div>
</section>
<details><summary>The recipe</summary><table id="recipe"></table></details>
<noscript><p>This page draws with JavaScript; without it, the run's report.html has the same pictures when it is finished.</p></noscript>
</body>
</html>
`;
}

/** What only the live page has. */
export const pageStyle = `
header progress { width: 100%; height: 6px; accent-color: var(--c0); }
#state { color: var(--soft); }
#state.lost { color: var(--c1); }
.bar { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; align-items: center; margin-bottom: 1rem; }
.bar p { flex: 1 1 16rem; }
fieldset { border: 1px solid var(--rule); border-radius: 8px; padding: 0.15rem 0.75rem 0.35rem; margin: 0; }
legend { font-size: 0.8rem; color: var(--soft); }
label { margin-right: 0.75rem; white-space: nowrap; }
.canvas { cursor: crosshair; touch-action: pan-y; border-radius: 4px; }
.canvas:focus-visible { outline: 2px solid var(--c0); outline-offset: 3px; }
`;
