// affine8: see affine8.ts for the byte layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

struct Affine8 : Floats {
  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const uint8_t* codes = w.part<uint8_t>(0);
    const uint16_t *steps = w.part<uint16_t>(1), *offsets = w.part<uint16_t>(2);
    const int64_t first = row * static_cast<int64_t>(w.cols) + from;
    for (int64_t i = 0; i < n; i++) {
      const int64_t at = first + i, block = at / 256;
      out[i] = half(steps[block]) * static_cast<float>(codes[at]) + half(offsets[block]);
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
