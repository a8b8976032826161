# Made with pyarrow 25.0.1: python make-parquet.py. Every file holds the rows of rows.json.
import json
import pyarrow as pa
import pyarrow.parquet as pq

words = ["fox", "hen", "owl", "naïve", "日本語", "🦊"]
texts = [" ".join(words[(i * j) % 6] for j in range(1, 6)) + "." for i in range(40)]
texts[3], texts[7], texts[11] = None, "", "line one\r\nline two\n"
table = pa.table({
    "id": pa.array(range(40), pa.int64()),
    "text": pa.array(texts, pa.string()),
    "meta": pa.array([{"n": i} for i in range(40)]),
})
plain = dict(row_group_size=16, use_dictionary=False)
pq.write_table(table, "plain.parquet", compression="none", **plain)
pq.write_table(table, "snappy.parquet", compression="snappy", row_group_size=16)
pq.write_table(table, "zstd.parquet", compression="zstd", data_page_version="2.0", row_group_size=16)
pq.write_table(table, "gzip-paged.parquet", compression="gzip", write_page_index=True,
               data_page_size=64, write_batch_size=4, **plain)
pq.write_table(table, "brotli.parquet", compression="brotli", **plain)
pq.write_table(table, "lz4.parquet", compression="lz4", **plain)
json.dump(texts, open("rows.json", "w"), ensure_ascii=False)
