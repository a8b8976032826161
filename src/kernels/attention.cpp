// Causal attention with grouped heads: see attention.ts for the definition.
//
// Scores exist only one tile at a time (Dao et al., 2022, https://arxiv.org/abs/2205.14135): a running maximum and a
// running sum per query make the softmax exact, and the backward pass recomputes the probabilities from logSums.
// Inside a tile the queries stand in the lanes, so that the softmax needs no sums across lanes and keys and values are
// read as scalars; Q and y are transposed on the way in and out. A few queries over many keys (decoding) would leave
// most lanes empty and go another way: keys in the lanes, tasks over chunks of keys.
#include "abi.h"
#include "gemm.h"
#include "logarithm.h"
#include "simd.h"
#include "threads.h"
#include "tile-product.h"

namespace lowbit::LOWBIT_BODY {
namespace attentions {

constexpr int64_t QUERIES = 2 * LANES;  // of a tile, in the lanes of two vectors
constexpr int64_t KEYS = 64;            // of a tile
constexpr int64_t CHUNK = 256;          // keys of a decoding task
const float INFINITE = __builtin_inff();

struct Shape {
  int64_t batch, time, keys, from, heads, kvHeads, headDim;
  int64_t qStride, kvStride;  // floats from row to row
  float scale;                // 1/√headDim

  explicit Shape(Arguments& a)
      : batch(a.size()), time(a.size()), keys(a.size()), from(a.size()), heads(a.size()), kvHeads(a.size()), headDim(a.size()) {
    qStride = heads * headDim;
    kvStride = kvHeads * headDim;
    scale = static_cast<float>(1 / __builtin_sqrt(static_cast<double>(headDim)));
  }
  int64_t kvHead(int64_t head) const { return head * kvHeads / heads; }
  int64_t queryTiles() const { return (time + QUERIES - 1) / QUERIES; }
  // Floats of a row of headDim, as whole vectors.
  int64_t paddedDim() const { return (headDim + LANES - 1) / LANES * LANES; }
  // Keys that queries before `query` of a sequence see.
  int64_t visible(int64_t query) const { return from + query < keys ? from + query : keys; }
};

// Hands out pieces of one block of floats, each on a 64-byte boundary.
struct Pieces {
  float* next;
  float* take(int64_t floats) {
    float* piece = next;
    next += rounded(floats);
    return piece;
  }
  static int64_t rounded(int64_t floats) { return (floats + 15) & ~int64_t{15}; }
};

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// into (rows, width) = the first `dim` elements of each row times factor, and zeros up to width.
inline void packRows(const float* rows, int64_t stride, int64_t count, int64_t dim, float factor, float* into, int64_t width) {
  const f32v factors = splat(factor);
  for (int64_t r = 0; r < count; r++) {
    const float* x = rows + r * stride;
    float* y = into + r * width;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) store(y + i, load(x + i) * factors);
    for (; i < dim; i++) y[i] = x[i] * factor;
    for (; i < width; i++) y[i] = 0;
  }
}

// into (dim, QUERIES) = the transposed rows times factor; lanes without a row are 0.
inline void packTransposed(const float* rows, int64_t stride, int64_t count, int64_t dim, float factor, float* into) {
  const int64_t fours = dim / 4 * 4;
  for (int64_t r = 0; r < QUERIES; r += LANES) {
    const int64_t present = count - r < 0 ? 0 : smaller(count - r, LANES);
    const int64_t done = present == LANES ? fours : 0;
    for (int64_t i = 0; i < done; i += 4) product::transposeFour(rows + r * stride + i, stride, into + i * QUERIES + r, QUERIES);
    for (int64_t i = done; i < dim; i++)
      for (int64_t lane = 0; lane < LANES; lane++) into[i * QUERIES + r + lane] = lane < present ? rows[(r + lane) * stride + i] : 0;
  }
  if (factor == 1) return;
  for (int64_t i = 0; i < dim * QUERIES; i += LANES) store(into + i, load(into + i) * splat(factor));
}

// tile (dim, QUERIES) times one factor per column.
inline void scaleColumns(float* tile, const float* factors, int64_t dim) {
  const f32v left = load(factors), right = load(factors + LANES);
  for (int64_t i = 0; i < dim * QUERIES; i += QUERIES) {
    store(tile + i, load(tile + i) * left);
    store(tile + i + LANES, load(tile + i + LANES) * right);
  }
}

// rows (count, dim) = the transposed tile (dim, QUERIES) times one factor per query; scales the tile too.
inline void unpackTransposed(float* tile, const float* factors, int64_t count, int64_t dim, float* rows, int64_t stride) {
  scaleColumns(tile, factors, dim);
  const int64_t fours = count / 4 * 4, lanes = dim / LANES * LANES;
  for (int64_t r = 0; r < fours; r += 4)
    for (int64_t i = 0; i < lanes; i += LANES) product::transposeFour(tile + i * QUERIES + r, QUERIES, rows + r * stride + i, stride);
  for (int64_t r = 0; r < count; r++)
    for (int64_t i = r < fours ? lanes : 0; i < dim; i++) rows[r * stride + i] = tile[i * QUERIES + r];
}

// 0, 1, 2, … plus `first`.
inline f32v counted(int64_t first) {
  float numbers[LANES];
  for (int i = 0; i < LANES; i++) numbers[i] = static_cast<float>(first + i);
  return load(numbers);
}

// log Σ exp(score) from the largest score and Σ exp(score − largest).
inline float logSum(float top, float total) { return static_cast<float>(top + logarithm(total)); }

// Whether n floats hold no infinity and no NaN.
inline bool finite(const float* x, int64_t n) {
  f32v zeros = splat(0);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) zeros = fma(load(x + i), splat(0), zeros);
  if (i < n) zeros = fma(load(x + i, static_cast<int>(n - i)), splat(0), zeros);
  return sum(zeros) == 0;
}

// On the diagonal a query meets keys that it does not see with a weight of 0. That is enough while everything is finite;
// 0·infinity and 0·NaN are not 0, so that tiles which hold such values take these two, which leave unseen pairs out.

// tile (dim, QUERIES) += Σ_j rows[j, :]·weights[j, :] over the keys that each query sees: j ≤ query + offset.
inline void addSeenKeys(const float* rows, int64_t dim, const float* weights, int64_t keys, int64_t offset, float* tile) {
  for (int half = 0; half < 2; half++) {
    const f32v position = counted(offset + half * LANES);
    for (int64_t j = 0; j < keys; j++)
      for (int64_t i = 0; i < dim; i++) {
        float* at = tile + i * QUERIES + half * LANES;
        const f32v added = fma(splat(rows[j * dim + i]), load(weights + j * QUERIES + half * LANES), load(at));
        store(at, less(position, splat(static_cast<float>(j)), load(at), added));
      }
  }
}

// sums (keys, width) += Σ_t weights[:, t]·rows[t, :] over the queries that see each key: t ≥ key − offset.
inline void addSeeingQueries(const float* weights, const float* rows, int64_t width, int64_t keys, int64_t queries, int64_t offset, float* sums) {
  for (int64_t j = 0; j < keys; j++) {
    const int64_t t = j - offset > 0 ? j - offset : 0;
    if (t < queries) tileProduct({weights + j * QUERIES + t, QUERIES, 1}, rows + t * width, width, sums + j * width, width, 1, width, queries - t, Start::add);
  }
}

// ---- forward, tiles of queries × keys ----

// One tile of queries of one head over all keys that they see.
inline void attendTile(const Shape& s, const float* q, const float* k, const float* v, float* y, float* logSums, int64_t query, float* scratch) {
  const int64_t count = smaller(QUERIES, s.time - query);
  Pieces pieces{scratch};
  float* qT = pieces.take(s.headDim * QUERIES);
  float* yT = pieces.take(s.headDim * QUERIES);
  float* keys = pieces.take(KEYS * s.headDim);
  float* values = pieces.take(KEYS * s.headDim);
  float* p = pieces.take(KEYS * QUERIES);

  packTransposed(q, s.qStride, count, s.headDim, s.scale, qT);
  for (int64_t i = 0; i < s.headDim * QUERIES; i++) yT[i] = 0;
  f32v top[2] = {splat(-INFINITE), splat(-INFINITE)};  // largest score so far
  f32v total[2] = {splat(0), splat(0)};                // Σ exp(score − top)

  const int64_t end = s.visible(query + count);
  for (int64_t first = 0; first < end; first += KEYS) {
    const int64_t n = smaller(KEYS, end - first);
    packRows(k + first * s.kvStride, s.kvStride, n, s.headDim, 1, keys, s.headDim);
    packRows(v + first * s.kvStride, s.kvStride, n, s.headDim, 1, values, s.headDim);
    tileProduct({keys, s.headDim, 1}, qT, QUERIES, p, QUERIES, n, QUERIES, s.headDim, Start::zero);

    const bool diagonal = first + n > s.from + query + 1;
    float corrections[QUERIES];  // what earlier sums shrink by
    for (int half = 0; half < 2; half++) {
      float* column = p + half * LANES;
      f32v newTop = top[half];
      if (diagonal) {
        const f32v position = counted(s.from + query + half * LANES);
        for (int64_t j = 0; j < n; j++) {
          const f32v score = less(position, splat(static_cast<float>(first + j)), splat(-INFINITE), load(column + j * QUERIES));
          store(column + j * QUERIES, score);
          newTop = max(score, newTop);
        }
      } else {
        for (int64_t j = 0; j < n; j++) newTop = max(load(column + j * QUERIES), newTop);
      }
      // Where every score so far is −infinity, exp(score − 0) keeps them at 0 instead of NaN.
      const f32v base = less(splat(-INFINITE), newTop, newTop, splat(0));
      const f32v correction = exp(top[half] - base);
      store(corrections + half * LANES, correction);
      f32v sum = total[half] * correction;
      for (int64_t j = 0; j < n; j++) {
        const f32v weight = exp(load(column + j * QUERIES) - base);
        store(column + j * QUERIES, weight);
        sum = sum + weight;
      }
      total[half] = sum;
      top[half] = newTop;
    }
    if (diagonal && !finite(values, n * s.headDim)) {
      scaleColumns(yT, corrections, s.headDim);
      addSeenKeys(values, s.headDim, p, n, s.from + query - first, yT);
    } else {
      tileProduct({values, 1, s.headDim}, p, QUERIES, yT, QUERIES, s.headDim, QUERIES, n, first == 0 ? Start::zero : Start::scaled, corrections);
    }
  }

  float tops[QUERIES], totals[QUERIES], inverse[QUERIES];
  for (int half = 0; half < 2; half++) {
    store(tops + half * LANES, top[half]);
    store(totals + half * LANES, total[half]);
    store(inverse + half * LANES, splat(1) / total[half]);
  }
  unpackTransposed(yT, inverse, count, s.headDim, y, s.qStride);
  for (int64_t r = 0; r < count; r++) logSums[r] = logSum(tops[r], totals[r]);
}

inline void forwardTiles(const Shape& s, const float* q, const float* k, const float* v, float* y, float* logSums) {
  const int64_t floats = 2 * Pieces::rounded(s.headDim * QUERIES) + 2 * Pieces::rounded(KEYS * s.headDim) + Pieces::rounded(KEYS * QUERIES);
  float* scratch = static_cast<float*>(lowbit_scratch(0, lowbit_threads() * floats * 4));
  const int64_t sequencesHeads = s.batch * s.heads;
  parallel(s.queryTiles() * sequencesHeads, [&](int64_t task) {
    // The last queries see the most keys: longest tasks first.
    const int64_t query = (s.queryTiles() - 1 - task / sequencesHeads) * QUERIES;
    const int64_t b = task % sequencesHeads / s.heads, h = task % s.heads;
    const int64_t row = (b * s.time + query) * s.qStride + h * s.headDim;
    const int64_t kv = b * s.keys * s.kvStride + s.kvHead(h) * s.headDim;
    attendTile(s, q + row, k + kv, v + kv, y + row, logSums + (b * s.heads + h) * s.time + query, query, scratch + lowbit_thread() * floats);
  });
}

// ---- forward, few queries ----

inline float dot(const float* a, const float* b, int64_t n) {
  f32v total = splat(0);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) total = fma(load(a + i), load(b + i), total);
  if (i < n) total = fma(load(a + i, static_cast<int>(n - i)), load(b + i, static_cast<int>(n - i)), total);
  return sum(total);
}

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
      packRows(q + (b * s.time + r % s.time) * s.qStride + (head + r / s.time) * dim, 0, 1, dim, s.scale, qRows + r * dim, dim);
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

// ---- backward ----

// Scratch of one thread, in floats; sizes as in `backwardGroup`.
inline int64_t backwardFloats(const Shape& s) {
  const int64_t dim = s.headDim, padded = s.paddedDim();
  return 2 * Pieces::rounded(s.keys * dim) + 2 * Pieces::rounded(s.keys * padded) + 3 * Pieces::rounded(dim * QUERIES) +
         2 * Pieces::rounded(QUERIES * padded) + 2 * Pieces::rounded(KEYS * QUERIES);
}

struct Gradients {
  float *dq, *dk, *dv;  // each may be missing
};

/*
 * All queries that read one kv head of one sequence; their sums need no other task.
 *
 *   P = exp(score − logSum),  dP = dY·Vᵀ,  dS = P ⊙ (dP − D),  D = Σ dy⊙y per query
 *   dV = Pᵀ·dY,  dQ = dS·K/√headDim,  dK = dSᵀ·Q/√headDim
 */
inline void backwardGroup(const Shape& s, const float* q, const float* k, const float* v, const float* y, const float* logSums, const float* dy, Gradients out, int64_t b, int64_t group, float* scratch) {
  const int64_t dim = s.headDim, padded = s.paddedDim(), end = s.visible(s.time);
  Pieces pieces{scratch};
  float* keys = pieces.take(s.keys * dim);
  float* values = pieces.take(s.keys * dim);
  float* dKeys = pieces.take(s.keys * padded);
  float* dValues = pieces.take(s.keys * padded);
  float* qT = pieces.take(dim * QUERIES);
  float* dyT = pieces.take(dim * QUERIES);
  float* dqT = pieces.take(dim * QUERIES);
  float* qRows = pieces.take(QUERIES * padded);
  float* dyRows = pieces.take(QUERIES * padded);
  float* p = pieces.take(KEYS * QUERIES);
  float* dp = pieces.take(KEYS * QUERIES);

  const int64_t kv = b * s.keys * s.kvStride + group * dim;
  packRows(k + kv, s.kvStride, end, dim, 1, keys, dim);
  packRows(v + kv, s.kvStride, end, dim, 1, values, dim);
  for (int64_t i = 0; i < end * padded; i++) dKeys[i] = dValues[i] = 0;
  float scales[QUERIES];
  for (int64_t r = 0; r < QUERIES; r++) scales[r] = s.scale;

  for (int64_t h = 0; h < s.heads; h++) {
    if (s.kvHead(h) != group) continue;
    for (int64_t query = 0; query < s.time; query += QUERIES) {
      const int64_t count = smaller(QUERIES, s.time - query);
      const int64_t row = (b * s.time + query) * s.qStride + h * dim;
      packRows(q + row, s.qStride, count, dim, s.scale, qRows, padded);
      packRows(dy + row, s.qStride, count, dim, 1, dyRows, padded);
      packTransposed(q + row, s.qStride, count, dim, s.scale, qT);
      packTransposed(dy + row, s.qStride, count, dim, 1, dyT);
      for (int64_t i = 0; i < dim * QUERIES; i++) dqT[i] = 0;
      const bool finiteRows = finite(qRows, count * padded) && finite(dyRows, count * padded);

      // Lanes without a query get P = exp(0 − infinity) = 0.
      float logs[QUERIES], pulls[QUERIES];
      for (int64_t r = 0; r < QUERIES; r++) {
        logs[r] = r < count ? logSums[(b * s.heads + h) * s.time + query + r] : INFINITE;
        pulls[r] = r < count ? dot(dy + row + r * s.qStride, y + row + r * s.qStride, dim) : 0;
      }

      const int64_t seen = s.visible(query + count);
      for (int64_t first = 0; first < seen; first += KEYS) {
        const int64_t n = smaller(KEYS, seen - first);
        tileProduct({keys + first * dim, dim, 1}, qT, QUERIES, p, QUERIES, n, QUERIES, dim, Start::zero);
        tileProduct({values + first * dim, dim, 1}, dyT, QUERIES, dp, QUERIES, n, QUERIES, dim, Start::zero);
        const bool diagonal = first + n > s.from + query + 1;
        for (int half = 0; half < 2; half++) {
          const f32v log = load(logs + half * LANES), pull = load(pulls + half * LANES);
          const f32v position = counted(s.from + query + half * LANES);
          for (int64_t j = 0; j < n; j++) {
            float* at = p + j * QUERIES + half * LANES;
            float* dAt = dp + j * QUERIES + half * LANES;
            f32v weight = exp(load(at) - log);
            f32v dScore = weight * (load(dAt) - pull);
            if (diagonal) {
              const f32v key = splat(static_cast<float>(first + j));
              weight = less(position, key, splat(0), weight);
              dScore = less(position, key, splat(0), dScore);
            }
            store(at, weight);
            store(dAt, dScore);
          }
        }
        const int64_t offset = s.from + query - first;
        if (out.dv) {
          if (diagonal && !finiteRows) addSeeingQueries(p, dyRows, padded, n, count, offset, dValues + first * padded);
          else tileProduct({p, QUERIES, 1}, dyRows, padded, dValues + first * padded, padded, n, padded, count, Start::add);
        }
        if (out.dk) {
          if (diagonal && !finiteRows) addSeeingQueries(dp, qRows, padded, n, count, offset, dKeys + first * padded);
          else tileProduct({dp, QUERIES, 1}, qRows, padded, dKeys + first * padded, padded, n, padded, count, Start::add);
        }
        if (out.dq) {
          if (diagonal && !finite(keys + first * dim, n * dim)) addSeenKeys(keys + first * dim, dim, dp, n, offset, dqT);
          else tileProduct({keys + first * dim, 1, dim}, dp, QUERIES, dqT, QUERIES, dim, QUERIES, n, Start::add);
        }
      }
      if (out.dq) unpackTransposed(dqT, scales, count, dim, out.dq + row, s.qStride);
    }
  }
  for (int64_t j = 0; j < s.keys; j++)
    for (int64_t i = 0; i < dim; i++) {
      if (out.dk) out.dk[kv + j * s.kvStride + i] = j < end ? dKeys[j * padded + i] : 0;
      if (out.dv) out.dv[kv + j * s.kvStride + i] = j < end ? dValues[j * padded + i] : 0;
    }
}

}  // namespace attentions

void attention(Arguments a) {
  const float *q = a.floats(), *k = a.floats(), *v = a.floats();
  float *y = a.floats(), *logSums = a.floats();
  const attentions::Shape s(a);
  if (s.time < LANES) attentions::forwardFew(s, q, k, v, y, logSums);
  else attentions::forwardTiles(s, q, k, v, y, logSums);
}

void attentionBackward(Arguments a) {
  const float *q = a.floats(), *k = a.floats(), *v = a.floats();
  const float *y = a.floats(), *logSums = a.floats(), *dy = a.floats();
  attentions::Gradients out;
  out.dq = a.floats();
  out.dk = a.floats();
  out.dv = a.floats();
  const attentions::Shape s(a);
  const int64_t floats = attentions::backwardFloats(s);
  float* scratch = static_cast<float*>(lowbit_scratch(0, lowbit_threads() * floats * 4));
  parallel(s.batch * s.kvHeads, [&](int64_t task) {
    attentions::backwardGroup(s, q, k, v, y, logSums, dy, out, task / s.kvHeads, task % s.kvHeads, scratch + lowbit_thread() * floats);
  });
}

}  // namespace lowbit::LOWBIT_BODY
