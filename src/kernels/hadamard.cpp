// Every `block` elements times the orthonormal Hadamard matrix: see hadamard.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

namespace fwht {

// Signs of the matrix of LANES, a row each.
struct Signs {
  alignas(64) float rows[LANES][LANES];
  constexpr Signs() : rows() {
    for (int i = 0; i < LANES; i++)
      for (int j = 0; j < LANES; j++) {
        int both = i & j, odd = 0;
        for (; both; both >>= 1) odd ^= both & 1;
        rows[i][j] = odd ? -1.0f : 1.0f;
      }
  }
};
constexpr Signs SIGNS;

// One block: inside vectors by the matrix, then butterflies of whole vectors.
inline void block(const float* x, float* y, int64_t n) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(n));
  if (n < LANES) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale;
    for (int64_t half = 1; half < n; half *= 2)
      for (int64_t i = 0; i < n; i++) {
        if (i & half) continue;
        const float a = y[i], b = y[i + half];
        y[i] = a + b;
        y[i + half] = a - b;
      }
    return;
  }
  for (int64_t i = 0; i < n; i += LANES) {
    f32v sums = splat(0.0f);
    for (int j = 0; j < LANES; j++) sums = fma(splat(x[i + j] * scale), load(SIGNS.rows[j]), sums);
    store(y + i, sums);
  }
  for (int64_t half = LANES; half < n; half *= 2)
    for (int64_t from = 0; from < n; from += 2 * half)
      for (int64_t i = from; i < from + half; i += LANES) {
        const f32v a = load(y + i), b = load(y + i + half);
        store(y + i, a + b);
        store(y + i + half, a - b);
      }
}

inline void blocks(const float* x, float* y, int64_t n, int64_t size) {
  eachRow(n / size, size, [=](int64_t r) { block(x + r * size, y + r * size, size); });
}

}  // namespace fwht

void hadamard(Arguments a) {
  const float* x = a.floats();
  float* y = a.floats();
  const int64_t n = a.size(), size = a.size();
  fwht::blocks(x, y, n, size);
}

void hadamardBackward(Arguments a) {
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  const int64_t n = a.size(), size = a.size();
  if (dx) fwht::blocks(dy, dx, n, size);
}

}  // namespace lowbit::LOWBIT_BODY
