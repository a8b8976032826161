// w ← w − rate·(scale·update + decay·w): see descend.ts.
#include "abi.h"
#include "moments.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void descend(Arguments a) {
  constexpr int64_t TASK = 4096;
  float* w = a.floats();
  const float* update = a.floats();
  const float norm = a.floats()[0];
  const int64_t n = a.size();
  const auto constant = [&] { return splat(static_cast<float>(a.number())); };
  const f32v rate = constant(), scale = constant(), pull = constant();
  if (!isFinite(norm)) return;
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    const int64_t end = n < (task + 1) * TASK ? n : (task + 1) * TASK;
    const auto next = [=](f32v x, f32v u) { return x - rate * (scale * u + pull * x); };
    int64_t i = task * TASK;
    for (; i + LANES <= end; i += LANES) store(w + i, next(load(w + i), load(update + i)));
    const int rest = static_cast<int>(end - i);
    if (rest > 0) store(w + i, next(load(w + i, rest), load(update + i, rest)), rest);
  });
}

}  // namespace lowbit::LOWBIT_BODY
