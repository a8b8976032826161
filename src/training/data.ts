import { z } from "zod";

const count = z.int().min(1);

/** Where a recipe's text comes from and how it becomes ids. */
export const dataSchema = z.strictObject({
  /** A text file, or a folder of them; relative to the recipe's own folder. */
  text: z.string().min(1),
  /** Names of the files that are kept for validation. */
  heldOut: z.array(z.string()).min(1),
  /** Either a vocabulary size to train one on the training text, or a tokenizer.json. */
  tokenizer: z
    .strictObject({ train: count.optional(), file: z.string().min(1).optional() })
    .refine(
      ({ train, file }) => (train === undefined) !== (file === undefined),
      "needs either train or file",
    ),
});
