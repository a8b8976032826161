// Attention of a few queries over many keys, as in decoding: see attention.cpp.
//
// A task is a chunk of keys of one kv head, for all queries that read it. Sums are in an order that the key's place
// alone decides: a query gets the same bits whichever others are computed with it, and on any number of threads.
#pragma once
#include "attention.h"
#include "threads.h"
#include "tile-product.h"

namespace lowbit::LOWBIT_BODY::attentions {

constexpr int64_t CHUNK = 256;  // keys of one task
constexpr int64_t PIECE = 32;   // keys whose values are decoded at a time
constexpr int64_t FEW = 8;      // queries that go this way in every body, at least
constexpr int64_t TRANSPOSED = 4;  // heads of a group from which on transposing their keys pays; never the number of queries

// Multiplications that take less time than waking the other threads.
constexpr int64_t SMALL = 1 << 16;

// y[r] (width) += Σ p[r][j]·row j for ROWS rows of p, CHUNK apart. Four sums side by side hide the latency of the additions.
template <int ROWS>
inline void addWeightedPart(const float* p, const float* rows, int64_t stride, int64_t count, int64_t width, float* y, int64_t yStride) {
  for (int64_t i = 0; i < width; i += LANES) {
    f32v sums[ROWS][4];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int u = 0; u < 4; u++) sums[r][u] = splat(0);
    int64_t j = 0;
    for (; j + 4 <= count; j += 4)
#pragma GCC unroll 4
      for (int u = 0; u < 4; u++) {
        const f32v value = load(rows + (j + u) * stride + i);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) sums[r][u] = fma(splat(p[r * CHUNK + j + u]), value, sums[r][u]);
      }
    for (; j < count; j++) {
      const f32v value = load(rows + j * stride + i);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) sums[r][0] = fma(splat(p[r * CHUNK + j]), value, sums[r][0]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      float* at = y + r * yStride + i;
      store(at, load(at) + ((sums[r][0] + sums[r][1]) + (sums[r][2] + sums[r][3])));
    }
  }
}

inline void addWeighted(int64_t queries, const float* p, const float* rows, int64_t stride, int64_t count, int64_t width, float* y,
                        int64_t yStride) {
  if constexpr (LANES == 16)
    for (; queries >= 4; queries -= 4, p += 4 * CHUNK, y += 4 * yStride) addWeightedPart<4>(p, rows, stride, count, width, y, yStride);
  for (; queries >= 2; queries -= 2, p += 2 * CHUNK, y += 2 * yStride) addWeightedPart<2>(p, rows, stride, count, width, y, yStride);
  if (queries > 0) addWeightedPart<1>(p, rows, stride, count, width, y, yStride);
}

// p[j] = q·key j for LANES keys, with sums in the lanes: for few queries, which do not repay transposing the keys.
inline void scoreRows(const float* q, const float* keys, int64_t stride, int64_t count, int64_t dim, float* p) {
  const int rest = static_cast<int>(dim % LANES);
  if (count < LANES) {
    for (int64_t j = 0; j < count; j++) {
      f32v total = splat(0);
      int64_t i = 0;
      for (; i + LANES <= dim; i += LANES) total = fma(load(q + i), load(keys + j * stride + i), total);
      if (rest) total = fma(load(q + i, rest), load(keys + j * stride + i, rest), total);
      p[j] = sum(total);
    }
    return;
  }
  f32v sums[LANES];
#pragma GCC unroll 16
  for (int j = 0; j < LANES; j++) sums[j] = splat(0);
  int64_t i = 0;
  for (; i + LANES <= dim; i += LANES) {
    const f32v x = load(q + i);
#pragma GCC unroll 16
    for (int j = 0; j < LANES; j++) sums[j] = fma(x, load(keys + j * stride + i), sums[j]);
  }
  if (rest) {
    const f32v x = load(q + i, rest);
    for (int j = 0; j < LANES; j++) sums[j] = fma(x, load(keys + j * stride + i, rest), sums[j]);
  }
#pragma GCC unroll 16
  for (int j = 0; j < LANES; j++) p[j] = sum(sums[j]);
}

// into (dim, LANES) = the transposed keys; lanes without a key are 0.
inline void packKeys(const float* keys, int64_t stride, int64_t count, int64_t dim, float* into) {
  int64_t i = 0;
  if (count == LANES)
    for (; i + 4 <= dim; i += 4) product::transposeFour(keys + i, stride, into + i * LANES, LANES);
  for (; i < dim; i++)
    for (int64_t j = 0; j < LANES; j++) into[i * LANES + j] = j < count ? keys[j * stride + i] : 0;
}

struct Weighed {
  float top, total;
};

// p (count) ← exp(p − top), top the largest; total is their sum.
inline Weighed weigh(float* p, int64_t count) {
  f32v tops = splat(-INFINITE);
  int64_t j = 0;
  for (; j + LANES <= count; j += LANES) tops = max(load(p + j), tops);
  float top = largest(tops);
  for (; j < count; j++)
    if (p[j] > top) top = p[j];
  const f32v base = splat(top > -INFINITE ? top : 0);
  f32v totals = splat(0);
  for (j = 0; j + LANES <= count; j += LANES) {
    const f32v weights = exp(load(p + j) - base);
    store(p + j, weights);
    totals = totals + weights;
  }
  float total = sum(totals);
  if (j < count) {
    const int rest = static_cast<int>(count - j);
    store(p + j, exp(load(p + j, rest) - base), rest);
    for (; j < count; j++) total += p[j];
  }
  return {top, total};
}

// What the chunks of one query make together; `next` floats from chunk to chunk.
inline void joinChunks(const float* part, int64_t chunks, int64_t next, int64_t dim, float* sums, float* y, float* log) {
  float top = -INFINITE;
  for (int64_t c = 0; c < chunks; c++)
    if (part[c * next] > top) top = part[c * next];
  const f32v base = splat(top > -INFINITE ? top : 0);
  const int64_t width = (dim + LANES - 1) / LANES * LANES;
  float total = 0;
  for (int64_t i = 0; i < width; i += LANES) store(sums + i, splat(0));
  for (int64_t c = 0; c < chunks; c++) {
    float weight[LANES];
    store(weight, exp(splat(part[c * next]) - base));
    total += weight[0] * part[c * next + 1];
    for (int64_t i = 0; i < width; i += LANES) store(sums + i, fma(splat(weight[0]), load(part + c * next + 2 + i), load(sums + i)));
  }
  const float inverse = 1 / total;
  for (int64_t i = 0; i < dim; i++) y[i] = sums[i] * inverse;
  *log = logSum(top, total);
}

inline void forwardFew(const Shape& s, const float* q, CacheRows k, CacheRows v, float* y, float* logSums) {
  const int64_t dim = s.headDim, width = s.paddedDim(), size = width + 2;
  const int64_t shared = s.heads / s.kvHeads, rows = shared * s.time;  // queries that read the same keys
  const int64_t groups = s.batch * s.kvHeads, queries = groups * rows, end = s.visible(s.time);
  const int64_t chunks = (end + CHUNK - 1) / CHUNK;
  // Of each chunk for each query (group, time, head): largest score, Σ exp(score − largest), Σ exp(…)·v (width).
  float* parts = static_cast<float*>(lowbit_scratch(0, (chunks * queries * size + width) * 4));
  float* sums = parts + chunks * queries * size;
  const int64_t floats = Pieces::rounded(rows * dim) + 2 * Pieces::rounded(dim * LANES) + Pieces::rounded(PIECE * width) + rows * CHUNK;
  float* scratch = static_cast<float*>(lowbit_scratch(1, lowbit_threads() * floats * 4));
  const bool inPlace = v.floats() && width == dim;

  const auto chunkOf = [&](int64_t task) {
    const int64_t first = task / groups * CHUNK, count = smaller(CHUNK, end - first);
    const int64_t b = task % groups / s.kvHeads, group = task % s.kvHeads, row = b * s.keys + first;
    float* part = parts + (task / groups * queries + task % groups * rows) * size;
    Pieces pieces{scratch + lowbit_thread() * floats};
    float* qRows = pieces.take(rows * dim);
    float* keys = pieces.take(dim * LANES);
    float* keyRows = pieces.take(dim * LANES);
    float* values = pieces.take(PIECE * width);
    float* p = pieces.take(rows * CHUNK);

    for (int64_t t = 0; t < s.time; t++)
      packRows(q + (b * s.time + t) * s.qStride + group * shared * dim, dim, shared, dim, s.scale, qRows + t * shared * dim, dim);
    for (int64_t j = 0; j < count; j += LANES) {
      const int64_t n = smaller(LANES, count - j);
      if (!k.floats()) k.copy(row + j, group * dim, n, dim, keyRows, dim);
      const float* from = k.floats() ? k.floats() + (row + j) * s.kvStride + group * dim : keyRows;
      const int64_t stride = k.floats() ? s.kvStride : dim;
      if (shared < TRANSPOSED) {
        for (int64_t r = 0; r < rows; r++) scoreRows(qRows + r * dim, from, stride, n, dim, p + r * CHUNK + j);
        continue;
      }
      packKeys(from, stride, n, dim, keys);
      tileProduct({qRows, dim, 1}, keys, LANES, p + j, CHUNK, rows, LANES, dim, Start::zero);
    }
    for (int64_t r = 0; r < rows; r++) {
      const int64_t seen = s.visible(r / shared + 1) - first;
      const Weighed weighed = weigh(p + r * CHUNK, seen < 0 ? 0 : smaller(seen, count));
      part[r * size] = weighed.top;
      part[r * size + 1] = weighed.total;
      for (int64_t i = 0; i < width; i += LANES) store(part + r * size + 2 + i, splat(0));
    }
    for (int64_t j = 0; j < count; j += PIECE) {
      const int64_t n = smaller(PIECE, count - j);
      if (!inPlace) v.copy(row + j, group * dim, n, dim, values, width);
      const float* from = inPlace ? v.floats() + (row + j) * s.kvStride + group * dim : values;
      const int64_t stride = inPlace ? s.kvStride : width;
      // Queries that see as many of these keys go together.
      for (int64_t t = 0; t < s.time;) {
        const auto seenBy = [&](int64_t time) { return smaller(s.visible(time + 1) - first - j, n); };
        const int64_t start = t, seen = seenBy(start);
        while (t < s.time && seenBy(t) == seen) t++;
        const int64_t r = start * shared;
        if (seen > 0) addWeighted((t - start) * shared, p + r * CHUNK + j, from, stride, seen, width, part + r * size + 2, size);
      }
    }
  };
  if (queries * end * dim <= SMALL)
    for (int64_t task = 0; task < chunks * groups; task++) chunkOf(task);
  else
    parallel(chunks * groups, chunkOf);

  for (int64_t at = 0; at < queries; at++) {
    const int64_t b = at / rows / s.kvHeads, h = at / rows % s.kvHeads * shared + at % shared, t = at % rows / shared;
    joinChunks(parts + at * size, chunks, queries * size, dim, sums, y + (b * s.time + t) * s.qStride + h * dim,
               logSums + (b * s.heads + h) * s.time + t);
  }
}

}  // namespace lowbit::LOWBIT_BODY::attentions
