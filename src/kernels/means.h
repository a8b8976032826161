// What kernels that round matrices share: means, from which methods make the scale (sums in 64 bits, cut by shape and
// added up in order, so that they do not depend on the number of threads; in scratch 0), and going over elements and rows.
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

LOWBIT_INLINE f32v loadSome(const float* x, int n) { return n < LANES ? load(x, n) : load(x); }
LOWBIT_INLINE void storeSome(float* y, f32v a, int n) {
  if (n < LANES) store(y, a, n);
  else store(y, a);
}

// y = value(x), z = value(x, y) of n elements in a row; `value` takes and gives LANES floats.
template <typename Value> LOWBIT_INLINE void rowOf(const float* x, float* y, int64_t n, const Value& value) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, value(load(x + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) store(y + i, value(load(x + i, rest)), rest);
}
template <typename Value> LOWBIT_INLINE void rowOfPair(const float* x, const float* y, float* z, int64_t n, const Value& value) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(z + i, value(load(x + i), load(y + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) store(z + i, value(load(x + i, rest), load(y + i, rest)), rest);
}

// Σ x·y
LOWBIT_INLINE float dotOf(const float* x, const float* y, int64_t n) {
  f32v sums = splat(0.0f);
  for (int64_t i = 0; i < n; i += LANES) {
    const int some = n - i < LANES ? static_cast<int>(n - i) : LANES;
    sums = fma(loadSome(x + i, some), loadSome(y + i, some), sums);
  }
  return sum(sums);
}

// sums_c = Σ_r term(r·cols + c); term(at, n) gives the elements from `at` on, n ≤ LANES of them.
template <typename Term> inline void columnSums(float* sums, int64_t rows, int64_t cols, Term term) {
  constexpr int64_t STRIP = 4 * LANES < 64 ? 64 : 4 * LANES;
  parallel((cols + STRIP - 1) / STRIP, [=](int64_t strip) {
    const int64_t end = (strip + 1) * STRIP < cols ? (strip + 1) * STRIP : cols;
    for (int64_t c = strip * STRIP; c < end; c += LANES) {
      const int n = end - c < LANES ? static_cast<int>(end - c) : LANES;
      f32v total = splat(0.0f);
      for (int64_t r = 0; r < rows; r++) total = total + term(r * cols + c, n);
      storeSome(sums + c, total, n);
    }
  });
}

// The same, element by element, of arrays of any length.
template <typename Value> inline void eachOf(const float* x, float* y, int64_t n, Value value) {
  parallel(chunksOf(n), [=](int64_t chunk) {
    const int64_t at = chunk * MEANS_CHUNK;
    rowOf(x + at, y + at, n - at < MEANS_CHUNK ? n - at : MEANS_CHUNK, value);
  });
}
template <typename Value> inline void eachPair(const float* x, const float* y, float* z, int64_t n, Value value) {
  parallel(chunksOf(n), [=](int64_t chunk) {
    const int64_t at = chunk * MEANS_CHUNK;
    rowOfPair(x + at, y + at, z + at, n - at < MEANS_CHUNK ? n - at : MEANS_CHUNK, value);
  });
}

// row(r) for every row; a task is as many rows as hold about a chunk.
template <typename Row> inline void eachRow(int64_t rows, int64_t cols, Row row) {
  const int64_t several = cols < MEANS_CHUNK ? MEANS_CHUNK / (cols > 0 ? cols : 1) : 1;
  parallel((rows + several - 1) / several, [=](int64_t task) {
    const int64_t end = (task + 1) * several < rows ? (task + 1) * several : rows;
    for (int64_t r = task * several; r < end; r++) row(r);
  });
}

// Straight through: dw = dy; nothing where no gradient is wanted.
inline void straightThrough(const float* dy, float* dw, int64_t n) {
  if (dw) eachOf(dy, dw, n, [](f32v x) { return x; });
}

}  // namespace lowbit::LOWBIT_BODY
