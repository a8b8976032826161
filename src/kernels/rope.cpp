// Rotary position embedding: see rope.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Rows of one task.
constexpr int64_t ROPE_ROWS = 16;

// One head: y1 = x1·cos − x2·sin, y2 = x1·sin + x2·cos, over the pairs; direction −1 turns back.
inline void turnHead(const float* __restrict x, float* __restrict y, const float* __restrict cosines, const float* __restrict sines,
                     int64_t half, float direction, bool neighbours) {
  if (neighbours) {
    for (int64_t i = 0; i < half; i++) {
      const float cos = cosines[i], sin = direction * sines[i];
      const float first = x[2 * i], second = x[2 * i + 1];
      y[2 * i] = first * cos - second * sin;
      y[2 * i + 1] = first * sin + second * cos;
    }
  } else {
    for (int64_t i = 0; i < half; i++) {
      const float cos = cosines[i], sin = direction * sines[i];
      const float first = x[i], second = x[i + half];
      y[i] = first * cos - second * sin;
      y[i + half] = first * sin + second * cos;
    }
  }
}

inline void turnRows(const float* x, float* y, const float* table, Arguments a, float direction) {
  const int64_t tokens = a.size(), heads = a.size(), headDim = a.size(), time = a.size(), from = a.size();
  const bool neighbours = a.number() == 0;
  parallel((tokens + ROPE_ROWS - 1) / ROPE_ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROPE_ROWS < tokens ? (task + 1) * ROPE_ROWS : tokens;
    for (int64_t t = task * ROPE_ROWS; t < end; t++) {
      const float* cosines = table + (from + t % time) * headDim;
      for (int64_t h = 0; h < heads; h++) {
        const int64_t at = (t * heads + h) * headDim;
        turnHead(x + at, y + at, cosines, cosines + headDim / 2, headDim / 2, direction, neighbours);
      }
    }
  });
}

void rope(Arguments a) {
  const float *x = a.floats(), *table = a.floats();
  float* y = a.floats();
  turnRows(x, y, table, a, 1);
}

void ropeBackward(Arguments a) {
  a.floats();
  const float* table = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  a.floats();
  if (dx) turnRows(dy, dx, table, a, -1);
}

}  // namespace lowbit::LOWBIT_BODY
