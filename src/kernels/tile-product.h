// Small matrix products on tiles that already lie in the first-level cache, for
// attention: no packing, registers only. Large products belong to gemm.h.
#pragma once
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

// Rows of C held in registers at a time; two vectors each. What sixteen (AVX2, WebAssembly) or thirty-two registers hold.
constexpr int TILE_ROWS = LANES == 16 ? 8 : 4;

// A matrix seen through two strides: element (r, k) at data[r·row + k·depth]. Transposing is swapping them.
struct Strided {
  const float* data;
  int64_t row, depth;
};

// What a product is added to: nothing, C, or C times one factor for each column.
enum class Start { zero, add, scaled };

template <int ROWS, int VECTORS>
LOWBIT_INLINE void tileProductPart(Strided a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t depth, Start start,
                                   const float* factors) {
  f32v sums[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) {
      sums[r][v] = start == Start::zero ? splat(0.0f) : load(c + r * cStride + v * LANES);
      if (start == Start::scaled) sums[r][v] = sums[r][v] * load(factors + v * LANES);
    }
#if defined(__clang__)
#pragma clang loop unroll(disable)
#endif
  for (int64_t k = 0; k < depth; k++) {
    f32v row[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) row[v] = load(b + k * bStride + v * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const f32v x = splat(a.data[r * a.row + k * a.depth]);
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; v++) sums[r][v] = fma(x, row[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) store(c + r * cStride + v * LANES, sums[r][v]);
}

template <int VECTORS>
inline void tileProductColumns(Strided a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t rows, int64_t depth,
                               Start start, const float* factors) {
  int64_t r = 0;
  const auto from = [&](int64_t row) { return Strided{a.data + row * a.row, a.row, a.depth}; };
  for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
    tileProductPart<TILE_ROWS, VECTORS>(from(r), b, bStride, c + r * cStride, cStride, depth, start, factors);
  for (; r + 2 <= rows; r += 2) tileProductPart<2, VECTORS>(from(r), b, bStride, c + r * cStride, cStride, depth, start, factors);
  for (; r < rows; r++) tileProductPart<1, VECTORS>(from(r), b, bStride, c + r * cStride, cStride, depth, start, factors);
}

// C (rows, width) = C₀ + A (rows, depth) · B (depth, width), C₀ as `start` says. `width` is a whole number of vectors.
inline void tileProduct(Strided a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t rows, int64_t width, int64_t depth,
                        Start start, const float* factors = nullptr) {
  const auto from = [=](int64_t column) { return factors ? factors + column : nullptr; };
  int64_t j = 0;
  for (; j + 2 * LANES <= width; j += 2 * LANES) tileProductColumns<2>(a, b + j, bStride, c + j, cStride, rows, depth, start, from(j));
  for (; j < width; j += LANES) tileProductColumns<1>(a, b + j, bStride, c + j, cStride, rows, depth, start, from(j));
}

}  // namespace lowbit::LOWBIT_BODY
