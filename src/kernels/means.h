// Means of a matrix, from which methods make its scale: sums in 64 bits, cut by shape and added up in order, so that
// they do not depend on the number of threads. Writes scratch 0.
#pragma once
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Elements of one task of the kernels that go over a matrix once.
constexpr int64_t MEANS_CHUNK = 16384;

LOWBIT_INLINE int64_t chunksOf(int64_t n) { return (n + MEANS_CHUNK - 1) / MEANS_CHUNK; }

// mean term(w), 0 of nothing.
template <typename Term> inline double meanOf(const float* w, int64_t n, Term term) {
  constexpr int SIDES = 16;  // sums side by side, for the compiler's vectors
  const int64_t chunks = chunksOf(n);
  double* sums = static_cast<double*>(lowbit_scratch(0, chunks * 8));
  parallel(chunks, [=](int64_t chunk) {
    double parts[SIDES] = {};
    int64_t i = chunk * MEANS_CHUNK;
    const int64_t end = i + MEANS_CHUNK < n ? i + MEANS_CHUNK : n;
    for (; i + SIDES <= end; i += SIDES)
      for (int s = 0; s < SIDES; s++) parts[s] += term(w[i + s]);
    for (; i < end; i++) parts[0] += term(w[i]);
    double sum = 0;
    for (int s = 0; s < SIDES; s++) sum += parts[s];
    sums[chunk] = sum;
  });
  double total = 0;
  for (int64_t chunk = 0; chunk < chunks; chunk++) total += sums[chunk];
  return n == 0 ? 0 : total / static_cast<double>(n);
}

inline double meanValue(const float* w, int64_t n) {
  return meanOf(w, n, [](float x) { return static_cast<double>(x); });
}

inline double meanMagnitude(const float* w, int64_t n) {
  return meanOf(w, n, [](float x) { return static_cast<double>(__builtin_fabsf(x)); });
}

// y = value(x), element by element; `value` takes and gives LANES floats.
template <typename Value> inline void eachOf(const float* x, float* y, int64_t n, Value value) {
  parallel(chunksOf(n), [=](int64_t chunk) {
    int64_t i = chunk * MEANS_CHUNK;
    const int64_t end = i + MEANS_CHUNK < n ? i + MEANS_CHUNK : n;
    for (; i + LANES <= end; i += LANES) store(y + i, value(load(x + i)));
    const int rest = static_cast<int>(end - i);
    if (rest > 0) store(y + i, value(load(x + i, rest)), rest);
  });
}

// Straight through: dw = dy; nothing where no gradient is wanted.
inline void straightThrough(const float* dy, float* dw, int64_t n) {
  if (dw) eachOf(dy, dw, n, [](f32v x) { return x; });
}

}  // namespace lowbit::LOWBIT_BODY
