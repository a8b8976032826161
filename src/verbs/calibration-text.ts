import { decodeText, readText } from "../files/index.ts";
import { baseName, fingerprint } from "../record/make.ts";
import type { Fingerprint } from "../record/record.ts";

/** A text file, or a text and what to call it. */
export type CalibrationText = string | { readonly name: string; readonly text: string };

/** The text, whose fingerprint joins those of the data. */
export async function calibrationText(calibration: CalibrationText, data: Fingerprint[]): Promise<string> {
  const [name, bytes] =
    typeof calibration === "string"
      ? [baseName(calibration), await readText(calibration)]
      : [calibration.name, new TextEncoder().encode(calibration.text)];
  data.push(await fingerprint(name, bytes));
  return decodeText(name, bytes);
}
