// One matrix of 8-bit codes read at fewer bits: see nested.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void nested(Arguments a) {
  const float* w = a.floats();
  float *y = a.floats(), *scales = a.floats(), *offsets = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  const int bits = static_cast<int>(a.size());
  const bool top = a.size() == 0;  // the rule of top bits
  const float size = static_cast<float>(1 << (8 - bits));
  // Ties of q/size go up where half of the least difference is added.
  const float up = top && bits < 8 ? 0.5f / size : 0.0f;
  const float least = top ? 0.0f : -128.0f, most = top ? 255.0f : 127.0f;
  const float first = top ? 0.0f : -128.0f / size, last = top ? static_cast<float>((1 << bits) - 1) : 128.0f / size - 1;
  eachRow(rows, cols, [=](int64_t r) {
    const float* x = w + r * cols;
    float low = cols > 0 ? x[0] : 0.0f, high = low, wrong = 0;
    for (int64_t c = 0; c < cols; c++) {
      low = x[c] < low ? x[c] : low;
      high = x[c] > high ? x[c] : high;
      wrong += x[c] - x[c];  // NaN where one is not finite
    }
    low += wrong;
    high += wrong;
    const float magnitude = -low > high ? -low : high;
    const float scale = half(nearestHalf(top ? (high - low) / 255.0f : magnitude / 127.0f));
    const float offset = top ? half(nearestHalf(low)) : 0.0f;
    scales[r] = scale;
    offsets[r] = offset;
    rowOf(x, y + r * cols, cols, [=](f32v one) {
      // The second operand survives where one is NaN.
      f32v code = scale == 0 ? splat(0.0f) : max(splat(least), min(splat(most), round((one - splat(offset)) / splat(scale))));
      code = code / splat(size) + splat(up);
      code = max(splat(first), min(splat(last), round(code)));
      const f32v value = splat(scale * size) * code;
      return top ? value + splat(offset) : value;
    });
  });
}

void nestedBackward(Arguments a) {
  for (int skip = 0; skip < 4; skip++) a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  straightThrough(dy, dw, rows * cols);
}

}  // namespace lowbit::LOWBIT_BODY
