// Levels over several powers of ten: see DynamicMap in moments.ts.
#pragma once
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

template <int DECADES, int FIRST, bool SIGNED> struct DynamicMap {
  // Levels above 0 and below 1, and the code of 0.
  static constexpr int INNER = FIRST * ((1 << DECADES) - 1);
  static constexpr int MIDDLE = SIGNED ? INNER : 0;
  static constexpr int COUNT = MIDDLE + INNER + 2;

  static constexpr double unit(int decade) {
    double power = 1;
    for (int i = decade; i < DECADES - 1; i++) power *= 10;
    return power;
  }
  // Magnitude j from 0 on.
  static constexpr double magnitude(int j) {
    if (j == 0) return 0;
    if (j == INNER + 1) return 1;
    int decade = 0, n = FIRST;
    for (j--; j >= n; n *= 2, decade++) j -= n;
    return (0.1 + 0.9 * (j + 0.5) / n) / unit(decade);
  }

  struct Levels {
    float of[COUNT];
  };
  static constexpr Levels makeLevels() {
    Levels levels = {};
    for (int code = 0; code < COUNT; code++)
      levels.of[code] = static_cast<float>(code < MIDDLE ? -magnitude(MIDDLE - code) : magnitude(code - MIDDLE));
    return levels;
  }
  static constexpr Levels levels = makeLevels();

  // The codes of the nearest levels, as floats.
  static LOWBIT_INLINE f32v nearest(f32v x) {
    const f32v size = SIGNED ? abs(x) : x;
    const auto constant = [](double value) { return splat(static_cast<float>(value)); };
    // What x is multiplied by, and the levels of its decade.
    f32v slope = constant(FIRST * unit(0) / 0.9), n = constant(FIRST);
#pragma GCC unroll 8
    for (int i = 1; i < DECADES; i++) {
      const double before = FIRST << (i - 1);
      const f32v end = constant((1 + 0.9 / before) / unit(i - 1));
      slope = less(end, size, constant(2 * before * unit(i) / 0.9), slope);
      n = less(end, size, constant(2 * before), n);
    }
    const f32v first = n - constant(FIRST);
    const f32v shift = n * constant(8.0 / 9) + constant(0.5 - FIRST);
    f32v j = max(first + constant(1), min(first + n, round(size * slope + shift)));
    j = less(constant(magnitude(1) / 2), size, j, splat(0.0f));
    j = less(constant((magnitude(INNER) + 1) / 2), size, constant(INNER + 1), j);
    if (!SIGNED) return j;
    const f32v middle = constant(MIDDLE);
    return less(x, splat(0.0f), middle - min(j, middle), middle + j);
  }
};

// The levels of `count` codes, and zeros up to a whole number of vectors.
inline void decodeBytes(const float* levels, const uint8_t* codes, int count, float* out) {
  for (int i = 0; i < count; i++) out[i] = levels[codes[i]];
  for (int i = count; i % LANES != 0; i++) out[i] = 0.0f;
}

}  // namespace lowbit::LOWBIT_BODY
