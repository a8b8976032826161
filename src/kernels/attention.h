// What the two ways of attention share: sizes, and the copies in and out of tiles.
#pragma once
#include "abi.h"
#include "cache-rows.h"
#include "gemm.h"
#include "logarithm.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY::attentions {

constexpr int64_t QUERIES = 2 * LANES;  // of a tile, in the lanes of two vectors
constexpr int64_t KEYS = 64;            // of a tile
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

// Keys or values as the kernel gets them: rows of floats, or a cache in a packed format.
class CacheRows {
 public:
  CacheRows(WeightView rows, int64_t stride) : floats_(rows.floats), stride_(stride) {
    if (rows.packed) stored_ = caches::Stored(*rows.packed);
  }

  // All rows, where they are plain floats.
  const float* floats() const { return floats_; }

  // into (count, width) = elements from … from+dim−1 of rows first …, and zeros up to width.
  void copy(int64_t first, int64_t from, int64_t count, int64_t dim, float* into, int64_t width) const {
    if (floats_) {
      packRows(floats_ + first * stride_ + from, stride_, count, dim, 1, into, width);
      return;
    }
    for (int64_t r = 0; r < count; r++) {
      stored_.decode(first + r, from, dim, into + r * width);
      for (int64_t i = dim; i < width; i++) into[r * width + i] = 0;
    }
  }

 private:
  const float* floats_;
  int64_t stride_;
  caches::Stored stored_{};
};

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

}  // namespace lowbit::LOWBIT_BODY::attentions
