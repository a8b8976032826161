// y = x/r ⊙ g, r = √(mean(x²) + ε), per row: see rms-norm.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Rows of one task. The gain's gradient is summed in groups of as many rows, then over the groups in order, so that
// the result depends on the shape alone.
constexpr int64_t NORM_ROWS = 16;

// 1/√(mean(x²) + ε)
LOWBIT_INLINE float inverse_norm(const float* x, int64_t dim, float epsilon) {
  f32v squares = splat(0.0f);
  int64_t i = 0;
  for (; i + LANES <= dim; i += LANES) squares = fma(load(x + i), load(x + i), squares);
  if (i < dim) {
    const f32v rest = load(x + i, static_cast<int>(dim - i));
    squares = fma(rest, rest, squares);
  }
  const f32v r = sqrt(splat(sum(squares) / static_cast<float>(dim) + epsilon));
  float lanes[LANES];
  store(lanes, splat(1.0f) / r);
  return lanes[0];
}

void rmsNorm(Arguments a) {
  const float* x = a.floats();
  const float* gain = a.floats();
  float* y = a.floats();
  const int64_t tokens = a.size(), dim = a.size();
  const float epsilon = static_cast<float>(a.number());
  parallel((tokens + NORM_ROWS - 1) / NORM_ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * NORM_ROWS < tokens ? (task + 1) * NORM_ROWS : tokens;
    for (int64_t t = task * NORM_ROWS; t < end; t++) {
      const float* row = x + t * dim;
      float* out = y + t * dim;
      const f32v inverse = splat(inverse_norm(row, dim, epsilon));
      int64_t i = 0;
      for (; i + LANES <= dim; i += LANES) store(out + i, load(row + i) * inverse * load(gain + i));
      if (i < dim) {
        const int rest = static_cast<int>(dim - i);
        store(out + i, load(row + i, rest) * inverse * load(gain + i, rest), rest);
      }
    }
  });
}

void rmsNormBackward(Arguments a) {
  const float* x = a.floats();
  const float* gain = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  float* dgain = a.floats();
  const int64_t tokens = a.size(), dim = a.size();
  const float epsilon = static_cast<float>(a.number());
  const int64_t tasks = (tokens + NORM_ROWS - 1) / NORM_ROWS;
  float* sums = dgain ? static_cast<float*>(lowbit_scratch(0, tasks * dim * 4)) : nullptr;  // (tasks, dim)

  parallel(tasks, [=](int64_t task) {
    float* partial = sums ? sums + task * dim : nullptr;
    if (partial)
      for (int64_t i = 0; i < dim; i++) partial[i] = 0.0f;
    const int64_t end = (task + 1) * NORM_ROWS < tokens ? (task + 1) * NORM_ROWS : tokens;
    for (int64_t t = task * NORM_ROWS; t < end; t++) {
      const float* row = x + t * dim;
      const float* dyRow = dy + t * dim;
      const float inverse = inverse_norm(row, dim, epsilon);
      if (dx) {
        f32v dots = splat(0.0f);  // Σ x⊙g⊙dy
        int64_t i = 0;
        for (; i + LANES <= dim; i += LANES) dots = fma(load(row + i) * load(gain + i), load(dyRow + i), dots);
        if (i < dim) {
          const int rest = static_cast<int>(dim - i);
          dots = fma(load(row + i, rest) * load(gain + i, rest), load(dyRow + i, rest), dots);
        }
        const f32v pull = splat(sum(dots) / static_cast<float>(dim) * inverse * inverse);
        float* out = dx + t * dim;
        i = 0;
        for (; i + LANES <= dim; i += LANES)
          store(out + i, (load(gain + i) * load(dyRow + i) - load(row + i) * pull) * splat(inverse));
        if (i < dim) {
          const int rest = static_cast<int>(dim - i);
          store(out + i, (load(gain + i, rest) * load(dyRow + i, rest) - load(row + i, rest) * pull) * splat(inverse), rest);
        }
      }
      if (partial) {
        int64_t i = 0;
        for (; i + LANES <= dim; i += LANES)
          store(partial + i, fma(load(dyRow + i) * load(row + i), splat(inverse), load(partial + i)));
        for (; i < dim; i++) partial[i] += dyRow[i] * row[i] * inverse;
      }
    }
  });

  if (!dgain) return;
  for (int64_t i = 0; i < dim; i++) dgain[i] = 0.0f;
  for (int64_t task = 0; task < tasks; task++)
    for (int64_t i = 0; i < dim; i++) dgain[i] += sums[task * dim + i];
}

}  // namespace lowbit::LOWBIT_BODY
