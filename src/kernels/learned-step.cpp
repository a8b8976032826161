// Rounding with a learned scale for each row, one to four bits and ternary: see learned-step.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

namespace learned {

constexpr float CLIP = 0.99f;

inline float alphaOf(float scale) { return half(nearestHalf(scale < 1e-5f ? 1e-5f : scale)); }

// The second operand survives where one is NaN.
LOWBIT_INLINE f32v clip(f32v x, float low, float high) { return max(splat(low), min(splat(high), x)); }

// Codes of weights x, q = x/α.
template <int BITS> LOWBIT_INLINE f32v codes(f32v x, f32v q) {
  if constexpr (BITS == 1) return less(x, splat(0.0f), splat(-1.0f), splat(1.0f)) + (x - x);
  if constexpr (BITS == 0) return round(splat(1.5f) * clip(q, -CLIP, CLIP));
  if constexpr (BITS == 2) return round(splat(2.0f) * clip(q, -CLIP, CLIP) - splat(0.5f)) + splat(2.0f);
  constexpr float TOP = static_cast<float>((1 << (BITS > 1 ? BITS - 1 : 0)) - 1);
  return clip(round(q), -TOP - 1, TOP);
}

template <int BITS> inline void forward(const float* w, const float* scale, float* y, float* steps, float* offsets, int64_t rows, int64_t cols) {
  eachRow(rows, cols, [=](int64_t r) {
    const float alpha = alphaOf(scale[r]);
    const float step = BITS == 0 ? half(nearestHalf(alpha * (2.0f / 3.0f))) : BITS == 2 ? alpha * 0.5f : alpha;
    const float offset = BITS == 2 ? -half(nearestHalf(0.75f * alpha)) : 0.0f;
    steps[r] = step;
    offsets[r] = offset;
    rowOf(w + r * cols, y + r * cols, cols, [=](f32v x) {
      const f32v value = splat(step) * codes<BITS>(x, x / splat(alpha));
      return BITS == 2 ? value + splat(offset) : value;
    });
  });
}

template <int BITS>
inline void backward(const float* w, const float* scale, const float* dy, float* dw, float* dscale, int64_t rows, int64_t cols) {
  constexpr float TOP = BITS > 2 ? static_cast<float>((1 << (BITS > 2 ? BITS - 1 : 0)) - 1) : 1.0f;
  constexpr float HIGH = BITS == 1 ? 1.0f : BITS > 2 ? TOP : CLIP, LOW = BITS > 2 ? -TOP - 1 : -HIGH;
  // What a weight beyond the ends gives to the scale.
  constexpr float ABOVE = BITS == 0 ? 1.0f : BITS == 2 ? 0.75f : HIGH, BELOW = BITS > 2 ? LOW : -ABOVE;
  const float factor = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(rows) * static_cast<double>(cols) * TOP));
  eachRow(rows, cols, [=](int64_t r) {
    const float alpha = alphaOf(scale[r]);
    f32v sums = splat(0.0f);
    for (int64_t c = 0; c < cols; c += LANES) {
      const int n = cols - c < LANES ? static_cast<int>(cols - c) : LANES;
      const f32v x = loadSome(w + r * cols + c, n), d = loadSome(dy + r * cols + c, n), q = x / splat(alpha);
      if (dw) storeSome(dw + r * cols + c, less(splat(HIGH), q, splat(0.0f), less(q, splat(LOW), splat(0.0f), d)), n);
      const f32v code = codes<BITS>(x, q);
      f32v slope = code;
      if constexpr (BITS != 1) {
        if constexpr (BITS == 0) slope = code / splat(1.5f);
        if constexpr (BITS == 2) slope = (code - splat(1.5f)) * splat(0.5f);
        slope = less(splat(HIGH), q, splat(ABOVE), less(q, splat(LOW), splat(BELOW), slope - q));
      }
      sums = sums + d * slope;
    }
    if (dscale) dscale[r] = sum(sums) * factor;
  });
}

template <int B> struct Bits {
  static constexpr int value = B;
};

// f(bits) with the number of bits as a type.
template <typename Visit> inline void withBits(int bits, const Visit& f) {
  switch (bits) {
    case 0: return f(Bits<0>{});
    case 1: return f(Bits<1>{});
    case 2: return f(Bits<2>{});
    case 3: return f(Bits<3>{});
    default: return f(Bits<4>{});
  }
}

}  // namespace learned

void learnedStep(Arguments a) {
  const float* w = a.floats();
  const float* scale = a.floats();
  float *y = a.floats(), *steps = a.floats(), *offsets = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  learned::withBits(static_cast<int>(a.size()), [=](auto bits) {
    learned::forward<decltype(bits)::value>(w, scale, y, steps, offsets, rows, cols);
  });
}

void learnedStepBackward(Arguments a) {
  const float* w = a.floats();
  const float* scale = a.floats();
  for (int skip = 0; skip < 3; skip++) a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  float* dscale = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  learned::withBits(static_cast<int>(a.size()), [=](auto bits) {
    learned::backward<decltype(bits)::value>(w, scale, dy, dw, dscale, rows, cols);
  });
}

}  // namespace lowbit::LOWBIT_BODY
