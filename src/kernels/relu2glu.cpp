// y = max(gate, 0)²·up: see relu2glu.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Elements of one task: 16 KiB of each array.
constexpr int64_t RELU2GLU_TASK = 4096;

// The second operand survives where it is NaN.
LOWBIT_INLINE f32v positivePart(f32v g) { return max(splat(0.0f), g); }

void relu2glu(Arguments a) {
  const float *gate = a.floats(), *up = a.floats();
  float* y = a.floats();
  const int64_t n = a.size();
  parallel((n + RELU2GLU_TASK - 1) / RELU2GLU_TASK, [=](int64_t task) {
    const auto value = [](f32v g, f32v u) {
      const f32v r = positivePart(g);
      return r * r * u;
    };
    int64_t i = task * RELU2GLU_TASK;
    const int64_t end = i + RELU2GLU_TASK < n ? i + RELU2GLU_TASK : n;
    for (; i + LANES <= end; i += LANES) store(y + i, value(load(gate + i), load(up + i)));
    const int rest = static_cast<int>(end - i);
    if (rest > 0) store(y + i, value(load(gate + i, rest), load(up + i, rest)), rest);
  });
}

void relu2gluBackward(Arguments a) {
  const float *gate = a.floats(), *up = a.floats();
  a.floats();
  const float* dy = a.floats();
  float *dGate = a.floats(), *dUp = a.floats();
  const int64_t n = a.size();
  parallel((n + RELU2GLU_TASK - 1) / RELU2GLU_TASK, [=](int64_t task) {
    const auto forGate = [](f32v r, f32v u, f32v d) { return (r + r) * u * d; };
    int64_t i = task * RELU2GLU_TASK;
    const int64_t end = i + RELU2GLU_TASK < n ? i + RELU2GLU_TASK : n;
    for (; i + LANES <= end; i += LANES) {
      const f32v r = positivePart(load(gate + i)), d = load(dy + i);
      if (dGate) store(dGate + i, forGate(r, load(up + i), d));
      if (dUp) store(dUp + i, r * r * d);
    }
    const int rest = static_cast<int>(end - i);
    if (rest > 0) {
      const f32v r = positivePart(load(gate + i, rest)), d = load(dy + i, rest);
      if (dGate) store(dGate + i, forGate(r, load(up + i, rest), d), rest);
      if (dUp) store(dUp + i, r * r * d, rest);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
