// ‖a/‖a‖ − b/‖b‖‖², per row: see match-states.ts.
#include "abi.h"
#include "row-sums.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace directions {

constexpr int64_t ROWS = 16;  // of one task

// 1/‖x‖, 0 where the norm is next to nothing.
inline float inverseNorm(const float* x, int64_t n) {
  const float squares = rowTotal(n, [=](int64_t i, int rest) {
    const f32v v = part(x + i, rest);
    return v * v;
  });
  float lanes[LANES];
  store(lanes, sqrt(splat(squares)));
  return lanes[0] <= 1e-12f ? 0.0f : 1.0f / lanes[0];
}

}  // namespace directions

void matchStates(Arguments arguments) {
  using namespace directions;
  const float *a = arguments.floats(), *b = arguments.floats();
  float* loss = arguments.floats();
  const int64_t tokens = arguments.size(), dim = arguments.size();
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < tokens ? (task + 1) * ROWS : tokens;
    for (int64_t t = task * ROWS; t < end; t++) {
      const float *x = a + t * dim, *y = b + t * dim;
      const f32v own = splat(inverseNorm(x, dim)), other = splat(inverseNorm(y, dim));
      loss[t] = rowTotal(dim, [=](int64_t i, int rest) {
        const f32v e = part(x + i, rest) * own - part(y + i, rest) * other;
        return e * e;
      });
    }
  });
}

void matchStatesBackward(Arguments arguments) {
  using namespace directions;
  const float *a = arguments.floats(), *b = arguments.floats();
  arguments.floats();
  const float* dLoss = arguments.floats();
  float* da = arguments.floats();
  arguments.floats();
  const int64_t tokens = arguments.size(), dim = arguments.size();
  if (!da) return;
  parallel((tokens + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < tokens ? (task + 1) * ROWS : tokens;
    for (int64_t t = task * ROWS; t < end; t++) {
      const float *x = a + t * dim, *y = b + t * dim;
      const float inverse = inverseNorm(x, dim);
      const f32v own = splat(inverse), other = splat(inverseNorm(y, dim));
      const f32v along = splat(rowTotal(dim, [=](int64_t i, int rest) {
        const f32v direction = part(x + i, rest) * own;
        return direction * (direction - part(y + i, rest) * other);
      }));
      const f32v factor = splat(2 * inverse * dLoss[t]);
      const auto gradient = [=](int64_t i, int rest) {
        const f32v direction = part(x + i, rest) * own;
        const f32v e = direction - part(y + i, rest) * other;
        return factor * (e - direction * along);
      };
      float* out = da + t * dim;
      int64_t i = 0;
      for (; i + LANES <= dim; i += LANES) store(out + i, gradient(i, 0));
      if (i < dim) store(out + i, gradient(i, static_cast<int>(dim - i)), static_cast<int>(dim - i));
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
