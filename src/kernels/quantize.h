// Activations as signed bytes, for the integer products of int-linear.h:
//
//   s = max|x|/127,  q = x·(127/max|x|) rounded, halves to even, over each group of a row;
//   all in float32, so that every processor gets the same q
//
// A group whose largest is below 2⁻¹⁰⁰ counts as zeros; one with a NaN or an
// infinity has s = NaN. See linear.ts, where the reference does the same.
#pragma once
#include "int-simd.h"
#include "panels.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

constexpr float QUIET = 7.888609052210118e-31f;  // 2⁻¹⁰⁰

// Rows of x, T of them to a tile, in the order in which a product reads them. Rows that x does not have are zeros.
struct Quantized {
  int8_t* codes;     // tile, quad of k, row of the tile, 4
  float* scales;     // tile, unit, row: s
  int32_t* starts;   // tile, group, row: −middle·Σq, over each GROUP of weights or else each unit
  float* sums;       // tile, unit, row: Σq; formats with offsets only
  int16_t* pairs;    // tile, two groups, row, 2: Σq; formats with offsets of groups only
  int64_t quads, units, groups, rows, tiles;
};

// What a format wants to know of the sums of activations.
struct Sums {
  int group;     // weights that share a sub-scale; 0: a unit is one group
  int middle;    // of its levels
  bool offsets;  // whether there are any
};

namespace quantized {

// One group of n activations: its codes (and zeros up to a whole number of chunks) and its scale.
inline float group(const float* x, int64_t n, int8_t* q) {
  f32v most = splat(0.0f), bad = splat(0.0f);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const f32v v = load(x + i);
    most = max(most, abs(v));
    bad = fma(v, splat(0.0f), bad);
  }
  const int rest = static_cast<int>(n - i);
  if (rest > 0) {
    const f32v v = load(x + i, rest);
    most = max(most, abs(v));
    bad = fma(v, splat(0.0f), bad);
  }
  const float top = largest(most);
  const bool finite = sum(bad) == 0.0f;
  const int64_t padded = roundUp(n, CHUNK);
  if (!finite || top < QUIET) {
    __builtin_memset(q, 0, static_cast<size_t>(padded));
    return finite ? 0.0f : __builtin_nanf("");
  }
  const f32v inverse = splat(127.0f / top);
  for (i = 0; i + LANES <= n; i += LANES) storeRounded(q + i, load(x + i) * inverse);
  if (rest > 0) {
    storeRounded(q + i, load(x + i, rest) * inverse);
    i += LANES;
  }
  if (i < padded) __builtin_memset(q + i, 0, static_cast<size_t>(padded - i));
  return top / 127.0f;
}

inline int32_t sumOf(const int8_t* q, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; i++) sum += q[i];
  return sum;
}

// Row r of a tile of T rows. `buffer` has room for the codes of a row.
inline void row(const float* x, const Panels& p, Sums wanted, int T, int r, const Quantized& to, int64_t tile, int8_t* buffer) {
  const int64_t perUnit = to.groups / p.units;
  int8_t* codes = to.codes + tile * to.quads * 4 * T;
  int8_t* line = T == 1 ? codes : buffer;
  for (int64_t u = 0; u < p.units; u++) {
    const int64_t n = p.weights(u), from = u * p.unit;
    int8_t* q = line + from;
    to.scales[(tile * p.units + u) * T + r] = group(x + from, n, q);
    const int64_t size = wanted.group ? wanted.group : n;
    int32_t whole = 0;
    for (int64_t g = 0; g * size < n; g++) {
      const int64_t at = u * perUnit + g;
      const int32_t sum = sumOf(q + g * size, size);
      whole += sum;
      to.starts[(tile * to.groups + at) * T + r] = -wanted.middle * sum;
      if (wanted.offsets && wanted.group)
        to.pairs[((tile * to.groups + at) / 2 * T + r) * 2 + at % 2] = static_cast<int16_t>(sum);
    }
    if (wanted.offsets && !wanted.group) to.sums[(tile * p.units + u) * T + r] = static_cast<float>(whole);
  }
  if (T > 1)
    for (int64_t k = 0; k < to.quads; k++) __builtin_memcpy(codes + (k * T + r) * 4, line + 4 * k, 4);
}

}  // namespace quantized

// Quantizes x (rows, cols) in tiles of T rows. Uses scratch slot 6. Call it outside parallel().
inline Quantized quantize(const float* x, int64_t rows, const Panels& p, Sums wanted, int T) {
  Quantized to = {};
  to.rows = rows;
  to.tiles = roundUp(rows, T) / T;
  to.quads = roundUp(p.cols, CHUNK) / 4;
  to.units = p.units;
  to.groups = wanted.group ? p.units * (256 / wanted.group) : p.units;
  const int64_t lines = to.tiles * T;
  // One block: codes, then the numbers of units and groups, then a line for each thread. A vector may be written past a line.
  const int64_t codeBytes = roundUp(lines * to.quads * 4 + 64, 64), unitBytes = roundUp(lines * to.units * 4, 64);
  const int64_t groupBytes = roundUp(lines * to.groups * 4, 64), lineBytes = to.quads * 4 + 64;
  char* at = static_cast<char*>(lowbit_scratch(6, codeBytes + 2 * unitBytes + 2 * groupBytes + lowbit_threads() * lineBytes));
  to.codes = reinterpret_cast<int8_t*>(at);
  to.scales = reinterpret_cast<float*>(at += codeBytes);
  to.sums = reinterpret_cast<float*>(at += unitBytes);
  to.starts = reinterpret_cast<int32_t*>(at += unitBytes);
  to.pairs = reinterpret_cast<int16_t*>(at += groupBytes);
  int8_t* buffers = reinterpret_cast<int8_t*>(at += groupBytes);

  const auto tile = [=](int64_t t) {
    int8_t* buffer = buffers + lowbit_thread() * lineBytes;
    const int64_t first = t * T;
    for (int r = 0; r < T; r++) {
      if (first + r < rows) {
        quantized::row(x + (first + r) * p.cols, p, wanted, T, r, to, t, buffer);
        continue;
      }
      for (int64_t k = 0; k < to.quads; k++) __builtin_memset(to.codes + ((t * to.quads + k) * T + r) * 4, 0, 4);
      for (int64_t u = 0; u < to.units; u++) to.scales[(t * to.units + u) * T + r] = to.sums[(t * to.units + u) * T + r] = 0.0f;
      for (int64_t g = 0; g < to.groups; g++) to.starts[(t * to.groups + g) * T + r] = 0;
      if (wanted.offsets && wanted.group)
        for (int64_t g = 0; g < to.groups; g++) to.pairs[((t * to.groups + g) / 2 * T + r) * 2 + g % 2] = 0;
    }
  };
  if (to.tiles == 1 || rows * p.cols < 32768) {
    for (int64_t t = 0; t < to.tiles; t++) tile(t);
  } else {
    parallel(to.tiles, tile);
  }
  return to;
}

}  // namespace lowbit::LOWBIT_BODY
