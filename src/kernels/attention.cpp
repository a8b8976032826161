// Causal attention with grouped heads: see attention.ts for the definition.
//
// Scores exist only one tile at a time (Dao et al., 2022, https://arxiv.org/abs/2205.14135): a running maximum and a
// running sum per query make the softmax exact, and the backward pass recomputes the probabilities from logSums.
// Inside a tile the queries stand in the lanes, so that the softmax needs no sums across lanes and keys and values are
// read as scalars; Q and y are transposed on the way in and out. A few queries over many keys (decoding) would leave
// most lanes empty and go another way (attention-few.h): keys in the lanes, tasks over chunks of keys.
#include "attention.h"
#include "attention-few.h"
#include "threads.h"
#include "tile-product.h"

namespace lowbit::LOWBIT_BODY {
namespace attentions {

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
inline void addSeeingQueries(const float* weights, const float* rows, int64_t width, int64_t keys, int64_t queries, int64_t offset,
                             float* sums) {
  for (int64_t j = 0; j < keys; j++) {
    const int64_t t = j - offset > 0 ? j - offset : 0;
    if (t >= queries) continue;
    const Strided seeing = {weights + j * QUERIES + t, QUERIES, 1};
    tileProduct(seeing, rows + t * width, width, sums + j * width, width, 1, width, queries - t, Start::add);
  }
}

// One tile of queries of one head over all keys that they see.
inline void attendTile(const Shape& s, const float* q, CacheRows k, CacheRows v, int64_t kvRow, int64_t kvFrom, float* y, float* logSums,
                       int64_t query, float* scratch) {
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
    k.copy(kvRow + first, kvFrom, n, s.headDim, keys, s.headDim);
    v.copy(kvRow + first, kvFrom, n, s.headDim, values, s.headDim);
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
      const Start start = first == 0 ? Start::zero : Start::scaled;
      tileProduct({values, 1, s.headDim}, p, QUERIES, yT, QUERIES, s.headDim, QUERIES, n, start, corrections);
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

inline void forwardTiles(const Shape& s, const float* q, CacheRows k, CacheRows v, float* y, float* logSums) {
  const int64_t floats =
      2 * Pieces::rounded(s.headDim * QUERIES) + 2 * Pieces::rounded(KEYS * s.headDim) + Pieces::rounded(KEYS * QUERIES);
  float* scratch = static_cast<float*>(lowbit_scratch(0, lowbit_threads() * floats * 4));
  const int64_t sequencesHeads = s.batch * s.heads;
  parallel(s.queryTiles() * sequencesHeads, [&](int64_t task) {
    // The last queries see the most keys: longest tasks first.
    const int64_t query = (s.queryTiles() - 1 - task / sequencesHeads) * QUERIES;
    const int64_t b = task % sequencesHeads / s.heads, h = task % s.heads;
    const int64_t row = (b * s.time + query) * s.qStride + h * s.headDim;
    float* logs = logSums + (b * s.heads + h) * s.time + query;
    attendTile(s, q + row, k, v, b * s.keys, s.kvHead(h) * s.headDim, y + row, logs, query, scratch + lowbit_thread() * floats);
  });
}

inline float dot(const float* a, const float* b, int64_t n) {
  f32v total = splat(0);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) total = fma(load(a + i), load(b + i), total);
  if (i < n) total = fma(load(a + i, static_cast<int>(n - i)), load(b + i, static_cast<int>(n - i)), total);
  return sum(total);
}

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
inline void backwardGroup(const Shape& s, const float* q, CacheRows k, CacheRows v, const float* y, const float* logSums,
                          const float* dy, Gradients out, int64_t b, int64_t group, float* scratch) {
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
  k.copy(b * s.keys, group * dim, end, dim, keys, dim);
  v.copy(b * s.keys, group * dim, end, dim, values, dim);
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
          float* sums = dValues + first * padded;
          if (diagonal && !finiteRows) addSeeingQueries(p, dyRows, padded, n, count, offset, sums);
          else tileProduct({p, QUERIES, 1}, dyRows, padded, sums, padded, n, padded, count, Start::add);
        }
        if (out.dk) {
          float* sums = dKeys + first * padded;
          if (diagonal && !finiteRows) addSeeingQueries(dp, qRows, padded, n, count, offset, sums);
          else tileProduct({dp, QUERIES, 1}, qRows, padded, sums, padded, n, padded, count, Start::add);
        }
        if (out.dq) {
          const float* rows = keys + first * dim;
          if (diagonal && !finite(rows, n * dim)) addSeenKeys(rows, dim, dp, n, offset, dqT);
          else tileProduct({rows, 1, dim}, dp, QUERIES, dqT, QUERIES, dim, QUERIES, n, Start::add);
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
  const float* q = a.floats();
  const WeightView keys = a.weight(), values = a.weight();
  float *y = a.floats(), *logSums = a.floats();
  const attentions::Shape s(a);
  const attentions::CacheRows k(keys, s.kvStride), v(values, s.kvStride);
  if (s.time <= attentions::FEW || s.time < LANES) attentions::forwardFew(s, q, k, v, y, logSums);
  else attentions::forwardTiles(s, q, k, v, y, logSums);
}

void attentionBackward(Arguments a) {
  const float* q = a.floats();
  const WeightView keys = a.weight(), values = a.weight();
  const float *y = a.floats(), *logSums = a.floats(), *dy = a.floats();
  attentions::Gradients out;
  out.dq = a.floats();
  out.dk = a.floats();
  out.dv = a.floats();
  const attentions::Shape s(a);
  const attentions::CacheRows k(keys, s.kvStride), v(values, s.kvStride);
  const int64_t floats = attentions::backwardFloats(s);
  float* scratch = static_cast<float*>(lowbit_scratch(0, lowbit_threads() * floats * 4));
  parallel(s.batch * s.kvHeads, [&](int64_t task) {
    float* own = scratch + lowbit_thread() * floats;
    attentions::backwardGroup(s, q, k, v, y, logSums, dy, out, task / s.kvHeads, task % s.kvHeads, own);
  });
}

}  // namespace lowbit::LOWBIT_BODY
