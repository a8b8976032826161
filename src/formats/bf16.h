// bf16: the upper half of a float32, see bf16.ts.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

struct BF16 : Floats {
  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const uint16_t* p = w.part<uint16_t>(0) + row * static_cast<int64_t>(w.cols) + from;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(out + i, asFloats(words(p + i) << 16));
    for (; i < n; i++) {
      union { uint32_t bits; float value; } f = {static_cast<uint32_t>(p[i]) << 16};
      out[i] = f.value;
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
