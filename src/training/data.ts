import { z } from "zod";

const count = z.int().min(1);

/** Text, in bytes of the files that hold it, from which a vocabulary is trained; of more, evenly spread parts. */
const SAMPLE = 64 * 2 ** 20;

/** Where a recipe's text comes from and how it becomes ids. */
export const dataSchema = z.strictObject({
  /**
   * A file, or a folder with all that is in it, sorted by path; relative to the recipe's own folder. Or
   * `hf:OWNER/NAME[@REVISION][/path]`, a data set of the Hugging Face hub or a file or folder of it.
   *
   *   *.jsonl, *.ndjson   each line is a document
   *   *.parquet           each row is a document
   *   all others          UTF-8 text, a file is a document
   */
  text: z.string().min(1),
  /** Key of a JSONL line, or column of a Parquet file, that holds the text. */
  field: z.string().min(1).default("text"),
  /** What stands between the documents of a text file, like `<|endoftext|>`; it belongs to none of them. */
  separator: z.string().min(1).optional(),
  /**
   * What is kept for validation: names of files, or a share of the documents, chosen by the hash of their text, so that
   * a document stays on its side when others are added or their order changes.
   */
  heldOut: z.union([z.array(z.string()).min(1), z.strictObject({ share: z.number().gt(0).lt(1) })], {
    error: "needs a list of names of files, or a share between 0 and 1 like { share: 0.01 }",
  }),
  /** Either a vocabulary size to train one on the training text, or a tokenizer.json. */
  tokenizer: z
    .strictObject({
      train: count.optional(),
      file: z.string().min(1).optional(),
      /** Bytes of text from which `train` learns. */
      sample: count.default(SAMPLE),
    })
    .refine(
      ({ train, file }) => (train === undefined) !== (file === undefined),
      "needs either train or file",
    ),
  /**
   * continuous: windows of the text as one stream, which may hold the end of a document and the start of the next.
   * documents: windows of whole documents and pieces of long ones, see packing.ts. Held-out text is always measured as
   * one stream, so that losses of both can be compared.
   */
  packing: z.enum(["continuous", "documents"]).default("continuous"),
  /** A folder where tokenized text is kept for other runs; relative to the recipe's own folder. Default: the run's own. */
  cache: z.string().min(1).optional(),
});

export type DataRecipe = z.output<typeof dataSchema>;
