// w ← R(w), rest ← R(w − R(w)): see split-bf16.ts.
#include "abi.h"
#include "bfloat16.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void splitBf16(Arguments a) {
  constexpr int64_t TASK = 16384;
  float* w = a.floats();
  uint16_t* rest = reinterpret_cast<uint16_t*>(a.integers());
  const int64_t n = a.size();
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    for (int64_t i = task * TASK; i < n && i < (task + 1) * TASK; i++) {
      const float high = roundBf16(w[i]);
      union { float value; uint32_t bits; } low = {roundBf16(w[i] - high)};
      rest[i] = static_cast<uint16_t>(low.bits >> 16);
      w[i] = high;
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
