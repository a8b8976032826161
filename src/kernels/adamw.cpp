// One step of AdamW: see adamw.ts. Every operation is rounded to float32 on its own, in the order written there.
#include "abi.h"
#include "moments.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void adamw(Arguments a) {
  constexpr int64_t TASK = 4096;
  float* w = a.floats();
  const float* gradient = a.floats();
  float *first = a.floats(), *second = a.floats();
  const float norm = a.floats()[0];
  const int64_t n = a.size();
  if (!isFinite(norm)) return;
  const Adam adam(a, norm);

  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    int64_t i = task * TASK;
    const int64_t end = i + TASK < n ? i + TASK : n;
    for (; i + LANES <= end; i += LANES) {
      const Adam::State s = adam.next({load(w + i), load(first + i), load(second + i)}, load(gradient + i));
      store(w + i, s.w);
      store(first + i, s.first);
      store(second + i, s.second);
    }
    const int rest = static_cast<int>(end - i);
    if (rest > 0) {
      const Adam::State s = adam.next({load(w + i, rest), load(first + i, rest), load(second + i, rest)}, load(gradient + i, rest));
      store(w + i, s.w, rest);
      store(first + i, s.first, rest);
      store(second + i, s.second, rest);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
