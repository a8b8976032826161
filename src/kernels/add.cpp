// y = a + b: see add.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Elements of one task: 16 KiB of each array.
constexpr int64_t ADD_TASK = 4096;

void add(Arguments a) {
  const float* left = a.floats();
  const float* right = a.floats();
  float* y = a.floats();
  const int64_t n = a.size();
  parallel((n + ADD_TASK - 1) / ADD_TASK, [=](int64_t task) {
    int64_t i = task * ADD_TASK;
    const int64_t end = i + ADD_TASK < n ? i + ADD_TASK : n;
    for (; i + LANES <= end; i += LANES) store(y + i, load(left + i) + load(right + i));
    if (i < end) store(y + i, load(left + i, static_cast<int>(end - i)) + load(right + i, static_cast<int>(end - i)), static_cast<int>(end - i));
  });
}

// da = db = dy
void addBackward(Arguments a) {
  a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* gradients[2] = {a.floats(), a.floats()};
  const int64_t n = a.size();
  for (float* gradient : gradients) {
    if (!gradient) continue;
    parallel((n + ADD_TASK - 1) / ADD_TASK, [=](int64_t task) {
      const int64_t begin = task * ADD_TASK;
      const int64_t end = begin + ADD_TASK < n ? begin + ADD_TASK : n;
      for (int64_t i = begin; i < end; i++) gradient[i] = dy[i];
    });
  }
}

}  // namespace lowbit::LOWBIT_BODY
