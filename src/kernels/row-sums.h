// Sums over a row, for kernels that normalize rows or compare them.
#pragma once
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

// LANES elements, or `rest` of them where that is not 0 and 0 for the others.
LOWBIT_INLINE f32v part(const float* p, int rest) { return rest ? load(p, rest) : load(p); }

// Σ f(i, rest) over a row of n: `f` takes LANES elements from i on, or `rest` of them where that is not 0; the others must be 0.
template <typename F> LOWBIT_INLINE float rowTotal(int64_t n, const F& f) {
  f32v sums = splat(0.0f);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) sums = sums + f(i, 0);
  if (i < n) sums = sums + f(i, static_cast<int>(n - i));
  return sum(sums);
}

}  // namespace lowbit::LOWBIT_BODY
