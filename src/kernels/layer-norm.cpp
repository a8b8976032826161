// y = (x − mean)·s, s = 1/√(variance + ε), per row: see layer-norm.ts.
#include "abi.h"
#include "row-sums.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace centred {

constexpr int64_t ROWS = 16;  // of one task

}  // namespace centred

void layerNorm(Arguments a) {
  using namespace centred;
  const float* x = a.floats();
  float *y = a.floats(), *inverses = a.floats();
  const int64_t tokens = a.size(), dim = a.size();
  const float epsilon = static_cast<float>(a.number());
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < tokens ? (task + 1) * ROWS : tokens;
    for (int64_t t = task * ROWS; t < end; t++) {
      const float* row = x + t * dim;
      float* out = y + t * dim;
      const float n = static_cast<float>(dim);
      const float mean = rowTotal(dim, [=](int64_t i, int rest) { return part(row + i, rest); }) / n;
      // Beyond the row's end stands the mean, whose square is no part of the sum.
      const float squares = rowTotal(dim, [=](int64_t i, int rest) {
        float lanes[LANES];
        f32v v = part(row + i, rest);
        if (rest) {
          store(lanes, v);
          for (int l = rest; l < LANES; l++) lanes[l] = mean;
          v = load(lanes);
        }
        const f32v away = v - splat(mean);
        return away * away;
      });
      float lanes[LANES];
      store(lanes, splat(1.0f) / sqrt(splat(squares / n + epsilon)));
      const float inverse = lanes[0];
      inverses[t] = inverse;
      int64_t i = 0;
      for (; i + LANES <= dim; i += LANES) store(out + i, (load(row + i) - splat(mean)) * splat(inverse));
      const int rest = static_cast<int>(dim - i);
      if (rest > 0) store(out + i, (load(row + i, rest) - splat(mean)) * splat(inverse), rest);
    }
  });
}

void layerNormBackward(Arguments a) {
  using namespace centred;
  a.floats();
  const float *y = a.floats(), *inverses = a.floats(), *dy = a.floats();
  float* dx = a.floats();
  const int64_t tokens = a.size(), dim = a.size();
  if (!dx) return;
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < tokens ? (task + 1) * ROWS : tokens;
    for (int64_t t = task * ROWS; t < end; t++) {
      const float *row = y + t * dim, *d = dy + t * dim;
      float* out = dx + t * dim;
      const float n = static_cast<float>(dim);
      const f32v mean = splat(rowTotal(dim, [=](int64_t i, int rest) { return part(d + i, rest); }) / n);
      const f32v pull = splat(rowTotal(dim, [=](int64_t i, int rest) { return part(row + i, rest) * part(d + i, rest); }) / n);
      const f32v inverse = splat(inverses[t]);
      int64_t i = 0;
      for (; i + LANES <= dim; i += LANES) store(out + i, inverse * (load(d + i) - mean - load(row + i) * pull));
      const int rest = static_cast<int>(dim - i);
      if (rest > 0) store(out + i, inverse * (load(d + i, rest) - mean - load(row + i, rest) * pull), rest);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
