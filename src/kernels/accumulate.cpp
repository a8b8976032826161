// into += factor·from: see accumulate.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void accumulate(Arguments a) {
  constexpr int64_t TASK = 4096;
  float* into = a.floats();
  const float* from = a.floats();
  const int64_t n = a.size();
  const f32v factor = splat(static_cast<float>(a.number()));
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    int64_t i = task * TASK;
    const int64_t end = i + TASK < n ? i + TASK : n;
    for (; i + LANES <= end; i += LANES) store(into + i, load(into + i) + factor * load(from + i));
    const int rest = static_cast<int>(end - i);
    if (rest > 0) store(into + i, load(into + i, rest) + factor * load(from + i, rest), rest);
  });
}

}  // namespace lowbit::LOWBIT_BODY
