// M ← β·M + g, update ← g + β·M or M: see momentum.ts.
#include "abi.h"
#include "moments.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void momentum(Arguments a) {
  constexpr int64_t TASK = 4096;
  float *buffer = a.floats(), *update = a.floats();
  const float* gradient = a.floats();
  const float norm = a.floats()[0];
  const int64_t n = a.size();
  const f32v keep = splat(static_cast<float>(a.number()));
  const bool nesterov = a.number() != 0;
  if (!isFinite(norm)) return;
  const f32v scale = splat(static_cast<float>(gradientFactor(norm, a.number())));
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    const int64_t end = n < (task + 1) * TASK ? n : (task + 1) * TASK;
    for (int64_t i = task * TASK; i < end; i += LANES) {
      const int rest = static_cast<int>(end - i);
      const bool whole = rest >= LANES;
      const f32v g = scale * (whole ? load(gradient + i) : load(gradient + i, rest));
      const f32v M = keep * (whole ? load(buffer + i) : load(buffer + i, rest)) + g;
      const f32v u = nesterov ? g + keep * M : M;
      if (whole) {
        store(buffer + i, M);
        store(update + i, u);
      } else {
        store(buffer + i, M, rest);
        store(update + i, u, rest);
      }
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
