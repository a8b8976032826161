import { z } from "zod";

const count = z.int().min(1);

/** Text, in bytes of the files that hold it, from which a vocabulary is trained; of more, evenly spread parts. */
const SAMPLE = 64 * 2 ** 20;

/** Text that a model writes, in place of one that is read. */
const generateSchema = z.strictObject({
  /** Who writes. Default: the teacher (loss.teacher), or the model that the run starts from (from). */
  model: z.string().min(1).optional(),
  /** Ids in all, start tokens counted. */
  tokens: count,
  /** First tokens of a text that are not drawn; one text after the other takes the next of these. */
  greedy: z.array(count).min(1).default([3, 4, 5]),
  /** Divides the logits of the tokens that are drawn. */
  temperature: z.number().positive().default(1),
  seed: z.int().default(0),
});

/** Where a recipe's text comes from and how it becomes ids. */
const schema = z.strictObject({
  /**
   * A file, or a folder with all that is in it, sorted by path; relative to the recipe's own folder. Or
   * `hf:OWNER/NAME[@REVISION][/path]`, a data set of the Hugging Face hub or a file or folder of it.
   *
   *   *.jsonl, *.ndjson   each line is a document
   *   *.parquet           each row is a document
   *   all others          UTF-8 text, a file is a document
   */
  text: z.string().min(1).optional(),
  /** A model writes the text, and its tokenizer is the run's: neither `text` nor `tokenizer` is given then. */
  generate: generateSchema.optional(),
  /** Key of a JSONL line, or column of a Parquet file, that holds the text. */
  field: z.string().min(1).default("text"),
  /** What stands between the documents of a text file, like `<|endoftext|>`; it belongs to none of them. */
  separator: z.string().min(1).optional(),
  /**
   * What is kept for validation: names of files; or a share of the documents, chosen by the hash of their text, so that
   * a document stays on its side when others are added or their order changes; or another text, named as `text` is.
   */
  heldOut: z.union(
    [
      z.array(z.string()).min(1),
      z.strictObject({ share: z.number().gt(0).lt(1) }),
      z.strictObject({ text: z.string().min(1) }),
    ],
    {
      error:
        "needs a list of names of files, a share between 0 and 1 like { share: 0.01 }, or another text like { text: FILE }",
    },
  ),
  /** Either a vocabulary size to train one on the training text, or a tokenizer.json. Default: that of the model that the run starts from. */
  tokenizer: z
    .strictObject({
      train: count.optional(),
      file: z.string().min(1).optional(),
      /** Bytes of text from which `train` learns. */
      sample: count.default(SAMPLE),
    })
    .prefault({}),
  /**
   * continuous: windows of the text as one stream, which may hold the end of a document and the start of the next.
   * documents: windows of whole documents and pieces of long ones, see packing.ts. Held-out text is always measured as
   * one stream, so that losses of both can be compared.
   */
  packing: z.enum(["continuous", "documents"]).default("continuous"),
  /** A folder where tokenized text is kept for other runs; relative to the recipe's own folder. Default: the run's own. */
  cache: z.string().min(1).optional(),
});

export const dataSchema = schema.superRefine(({ text, generate, tokenizer, heldOut }, { addIssue }) => {
  const refuse = (path: string[], message: string) => addIssue({ code: "custom", path, message });
  const { train, file } = tokenizer;
  if (generate === undefined) {
    if (text === undefined)
      refuse(["text"], "needs a file, a folder or a data set (or generate, and a model writes it)");
    if (train !== undefined && file !== undefined) refuse(["tokenizer"], "needs either train or file");
    return;
  }
  if (text !== undefined) refuse(["text"], "leave it out where generate says who writes");
  if (train !== undefined || file !== undefined)
    refuse(["tokenizer"], "leave it out: it is that of the model that writes");
  if (Array.isArray(heldOut))
    refuse(
      ["heldOut"],
      "of a generated text it is a share like { share: 0.01 }, or another text like { text: FILE }",
    );
});

export type DataRecipe = z.output<typeof dataSchema>;
