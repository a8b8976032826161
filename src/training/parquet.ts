import type { AsyncBuffer } from "hyparquet";
import type { ByteSource } from "../files/file.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";

/** Text that is held at once, in bytes before compression, where the file has an index of its pages. */
const ROWS_BYTES = 2 ** 23;
/** A row group without such an index is held as a whole; of a larger one a person is told. */
const LARGE_GROUP = 2 ** 27;

/**
 * The rows of a Parquet file as documents, in their order, through `hyparquet`:
 * only the column of the text is read, a row group at a time, or less where
 * the file has an index of its pages. Rows without a value are empty. An
 * InputError for a file that is none, or has no such column of text.
 */
export async function* parquetRows(
  source: ByteSource,
  column: string,
  { onWarning }: Job = {},
): AsyncGenerator<{ text: string; read: number; last: boolean }> {
  // Asked for when it is needed: few texts are kept so.
  const { parquetMetadataAsync, parquetScan, parquetSchema } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  const file: AsyncBuffer = {
    byteLength: source.byteLength,
    async slice(from, to = source.byteLength) {
      const bytes = await source.slice(from, to);
      const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
      return (whole ? bytes : bytes.slice()).buffer as ArrayBuffer;
    },
  };
  const reading = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      if (error instanceof InputError) throw error;
      const why = (error as Error).message.split("\n", 1)[0];
      throw new InputError(`${source.name}: cannot be read as Parquet (${why}); damaged?`);
    }
  };
  // Looking for geography never ends in a damaged schema.
  const metadata = await reading(() => parquetMetadataAsync(file, { geoparquet: false }));
  const schema = await reading(async () => parquetSchema(metadata));
  const columns = schema.children;
  const found = columns.find(({ element }) => element.name === column);
  if (found === undefined) {
    const names = columns.map(({ element }) => element.name);
    throw new InputError(
      `${source.name}: needs a column ${JSON.stringify(column)}, has ${names.slice(0, 8).join(", ")}; set data.field`,
    );
  }
  // Of lists, and of what it does not know, hyparquet makes rows without end.
  const { repetition_type: each = "" } = found.element;
  if (schema.element.repetition_type === "REPEATED" || !["REQUIRED", "OPTIONAL"].includes(each)) {
    throw new InputError(
      `${source.name}: needs one text a row in ${JSON.stringify(column)}, met lists; set data.field`,
    );
  }
  const isText = (value: unknown) => typeof value === "string" || value === null || value === undefined;
  const inGroups = metadata.row_groups.reduce((sum, group) => sum + Number(group.num_rows), 0);
  if (inGroups !== Number(metadata.num_rows)) {
    throw new InputError(
      `${source.name}: its groups have ${inGroups} rows, its header says ${metadata.num_rows}; damaged?`,
    );
  }
  const total = Math.max(1, inGroups);
  let row = 0;
  for (const group of metadata.row_groups) {
    const rows = Number(group.num_rows);
    const chunk = group.columns.find(({ meta_data }) => meta_data?.path_in_schema[0] === column);
    const bytes = Number(chunk?.meta_data?.total_uncompressed_size ?? 0);
    const isIndexed = chunk?.offset_index_offset !== undefined;
    const at = isIndexed ? Math.max(1, Math.floor((rows * ROWS_BYTES) / Math.max(1, bytes))) : rows;
    if (!isIndexed && bytes > LARGE_GROUP) {
      const megabytes = Math.round(bytes / 2 ** 20);
      onWarning?.(
        `${source.name}: a row group of ${megabytes} MB is held in memory as a whole; write smaller ones, or an index of pages`,
      );
    }
    // A scan remembers the last rows that it read; one of its own for each group lets go of them.
    const scan = await reading(() => parquetScan({ file, metadata, columns: [column], compressors }));
    for (const end = row + rows; row < end; ) {
      const to = Math.min(end, row + at);
      const from = row;
      const values = await reading(() => scan.readColumn({ column, rowStart: from, rowEnd: to }));
      if (values.length !== to - from) {
        throw new InputError(
          `${source.name}: rows ${from} … ${to - 1} hold ${values.length} values, ${to - from} are needed; damaged?`,
        );
      }
      for (const [i, value] of Array.from(values).entries()) {
        if (!isText(value)) {
          throw new InputError(
            `${source.name} row ${from + i}: needs a text in ${JSON.stringify(column)}, met ${typeof value}; set data.field`,
          );
        }
        const read = Math.floor(((from + i + 1) / total) * source.byteLength);
        yield { text: ((value as string | null | undefined) ?? "").toWellFormed(), read, last: true };
      }
      row = to;
    }
  }
}
