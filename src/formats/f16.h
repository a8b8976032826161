// f16: IEEE half precision, see f16.ts.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

struct F16 : Floats {
  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const uint16_t* p = w.part<uint16_t>(0) + row * static_cast<int64_t>(w.cols) + from;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(out + i, halves(p + i));
    for (; i < n; i++) out[i] = half(p[i]);
  }
};

}  // namespace lowbit::LOWBIT_BODY
