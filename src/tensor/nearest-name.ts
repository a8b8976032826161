/**
 * Of the known names the one with the fewest letters to insert, delete or
 * replace (Levenshtein, 1966), for `did you mean`. A letter to insert counts
 * half: names are more often cut short than misspelt.
 */
export function nearestName(name: string, known: Iterable<string>): string {
  let nearest = "";
  let least = Infinity;
  for (const candidate of known) {
    const distance = edits(name, candidate);
    if (distance < least) {
      nearest = candidate;
      least = distance;
    }
  }
  return nearest;
}

function edits(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, j) => j / 2);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(above[j] + 1, row[j - 1] + 0.5, above[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    above = row;
  }
  return above[b.length];
}
