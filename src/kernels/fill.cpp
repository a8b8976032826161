// t ← value everywhere: see fill.ts.
#include "abi.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void fill(Arguments a) {
  constexpr int64_t TASK = 16384;
  float* t = a.floats();
  const int64_t n = a.size();
  const float value = static_cast<float>(a.number());
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    const int64_t begin = task * TASK;
    const int64_t end = begin + TASK < n ? begin + TASK : n;
    for (int64_t i = begin; i < end; i++) t[i] = value;
  });
}

}  // namespace lowbit::LOWBIT_BODY
