// y = silu(gate)·up: see swiglu.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Elements of one task: 16 KiB of each array.
constexpr int64_t SWIGLU_TASK = 4096;

void swiglu(Arguments a) {
  const float *gate = a.floats(), *up = a.floats();
  float* y = a.floats();
  const int64_t n = a.size();
  parallel((n + SWIGLU_TASK - 1) / SWIGLU_TASK, [=](int64_t task) {
    const auto value = [](f32v g, f32v u) { return g / (splat(1) + exp(splat(0) - g)) * u; };
    int64_t i = task * SWIGLU_TASK;
    const int64_t end = i + SWIGLU_TASK < n ? i + SWIGLU_TASK : n;
    for (; i + LANES <= end; i += LANES) store(y + i, value(load(gate + i), load(up + i)));
    const int rest = static_cast<int>(end - i);
    if (rest > 0) store(y + i, value(load(gate + i, rest), load(up + i, rest)), rest);
  });
}

void swigluBackward(Arguments a) {
  const float *gate = a.floats(), *up = a.floats();
  a.floats();
  const float* dy = a.floats();
  float *dGate = a.floats(), *dUp = a.floats();
  const int64_t n = a.size();
  parallel((n + SWIGLU_TASK - 1) / SWIGLU_TASK, [=](int64_t task) {
    struct Pair {
      f32v gate, up;
    };
    const auto gradients = [](f32v g, f32v u, f32v d) -> Pair {
      const f32v one = splat(1), below = one + exp(splat(0) - g);
      const f32v sigmoid = one / below;
      return {d * u * sigmoid * (one + g * (one - sigmoid)), d * (g / below)};
    };
    int64_t i = task * SWIGLU_TASK;
    const int64_t end = i + SWIGLU_TASK < n ? i + SWIGLU_TASK : n;
    for (; i + LANES <= end; i += LANES) {
      const Pair pair = gradients(load(gate + i), load(up + i), load(dy + i));
      if (dGate) store(dGate + i, pair.gate);
      if (dUp) store(dUp + i, pair.up);
    }
    const int rest = static_cast<int>(end - i);
    if (rest > 0) {
      const Pair pair = gradients(load(gate + i, rest), load(up + i, rest), load(dy + i, rest));
      if (dGate) store(dGate + i, pair.gate, rest);
      if (dUp) store(dUp + i, pair.up, rest);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
