// Attention of a few queries over many keys, as in decoding: see attention.cpp.
#pragma once
#include "attention.h"
#include "threads.h"
#include "tile-product.h"

namespace lowbit::LOWBIT_BODY::attentions {

constexpr int64_t CHUNK = 256;  // keys of one task

// y (dim) = Σ p[j]·row j. Four sums side by side hide the latency of the additions.
inline void weightedRows(const float* p, const float* rows, int64_t stride, int64_t count, int64_t dim, float* y) {
  int64_t i = 0;
  for (; i + LANES <= dim; i += LANES) {
    f32v sums[4] = {splat(0), splat(0), splat(0), splat(0)};
    int64_t j = 0;
    for (; j + 4 <= count; j += 4)
      for (int u = 0; u < 4; u++) sums[u] = fma(splat(p[j + u]), load(rows + (j + u) * stride + i), sums[u]);
    for (; j < count; j++) sums[0] = fma(splat(p[j]), load(rows + j * stride + i), sums[0]);
    store(y + i, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  for (; i < dim; i++) {
    float total = 0;
    for (int64_t j = 0; j < count; j++) total += p[j] * rows[j * stride + i];
    y[i] = total;
  }
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

inline void forwardFew(const Shape& s, const float* q, const float* k, const float* v, float* y, float* logSums) {
  const int64_t dim = s.headDim, size = dim + 2, queries = s.batch * s.heads * s.time;
  const int64_t rows = s.heads / s.kvHeads * s.time;  // queries that read the same keys
  const int64_t chunks = (s.visible(s.time) + CHUNK - 1) / CHUNK;
  // Of each chunk for each query: largest score, Σ exp(score − largest), Σ exp(…)·v (headDim).
  float* parts = static_cast<float*>(lowbit_scratch(0, chunks * queries * size * 4));  // (chunks, batch, heads, time, size)
  const int64_t floats = Pieces::rounded(rows * dim) + Pieces::rounded(dim * LANES) + Pieces::rounded(rows * CHUNK);
  float* scratch = static_cast<float*>(lowbit_scratch(1, lowbit_threads() * floats * 4));

  parallel(chunks * s.batch * s.kvHeads, [&](int64_t task) {
    const int64_t chunk = task / (s.batch * s.kvHeads), b = task / s.kvHeads % s.batch, group = task % s.kvHeads;
    const int64_t first = chunk * CHUNK, count = smaller(CHUNK, s.visible(s.time) - first);
    const int64_t kv = (b * s.keys + first) * s.kvStride + group * dim;
    const int64_t head = group * (s.heads / s.kvHeads);  // the first of them
    float* part = parts + (chunk * queries + (b * s.heads + head) * s.time) * size;
    Pieces pieces{scratch + lowbit_thread() * floats};
    float* qRows = pieces.take(rows * dim);
    float* keys = pieces.take(dim * LANES);
    float* p = pieces.take(rows * CHUNK);

    for (int64_t r = 0; r < rows; r++)
      packRows(q + (b * s.time + r % s.time) * s.qStride + (head + r / s.time) * dim, dim, 1, dim, s.scale, qRows + r * dim, dim);
    for (int64_t j = 0; j < count; j += LANES) {
      packKeys(k + kv + j * s.kvStride, s.kvStride, smaller(LANES, count - j), dim, keys);
      tileProduct({qRows, dim, 1}, keys, LANES, p + j, CHUNK, rows, LANES, dim, Start::zero);
    }
    // Of the products only those whose rows all see the same keys go together.
    const bool together = rows > 1 && (s.time == 1 || s.visible(1) >= first + count);
    const int64_t lanes = together ? dim / LANES * LANES : 0;
    for (int64_t r = 0; r < rows; r++) {
      const int64_t seen = s.visible(r % s.time + 1) - first, n = seen < 0 ? 0 : smaller(seen, count);
      const Weighed weighed = weigh(p + r * CHUNK, n);
      part[r * size] = weighed.top;
      part[r * size + 1] = weighed.total;
      weightedRows(p + r * CHUNK, v + kv + lanes, s.kvStride, n, dim - lanes, part + r * size + 2 + lanes);
    }
    if (together) tileProduct({p, CHUNK, 1}, v + kv, s.kvStride, part + 2, size, rows, lanes, count, Start::zero);
  });
  for (int64_t at = 0; at < queries; at++) {
    const float* part = parts + at * size;
    const int64_t next = queries * size;
    float top = -INFINITE;
    for (int64_t c = 0; c < chunks; c++)
      if (part[c * next] > top) top = part[c * next];
    const float base = top > -INFINITE ? top : 0;
    const int64_t b = at / (s.heads * s.time), h = at / s.time % s.heads, t = at % s.time;
    float* row = y + (b * s.time + t) * s.qStride + h * s.headDim;
    float total = 0;
    for (int64_t i = 0; i < s.headDim; i++) row[i] = 0;
    for (int64_t c = 0; c < chunks; c++) {
      float weight[LANES];
      store(weight, exp(splat(part[c * next] - base)));
      total += weight[0] * part[c * next + 1];
      for (int64_t i = 0; i < s.headDim; i++) row[i] += weight[0] * part[c * next + 2 + i];
    }
    const float inverse = 1 / total;
    for (int64_t i = 0; i < s.headDim; i++) row[i] *= inverse;
    logSums[at] = logSum(top, total);
  }
}

}  // namespace lowbit::LOWBIT_BODY::attentions
