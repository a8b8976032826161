// tq2_0: see tq2_0.ts for the byte layout.
#pragma once
#include "../kernels/abi.h"
#include "../kernels/simd.h"

namespace lowbit::LOWBIT_BODY {

inline void decodeTq2_0(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  const uint8_t* first = w.part<uint8_t>(0) + row * (static_cast<int64_t>(w.cols) / 256 * 66);
  for (int64_t i = from, end = from + n; i < end;) {
    // A run: up to 32 neighbours in one plane.
    const int64_t place = i % 256, left = end - i;
    const int count = static_cast<int>(32 - place % 32 < left ? 32 - place % 32 : left);
    const uint8_t* group = first + i / 256 * 66;
    const uint8_t* q = group + place / 128 * 32 + place % 32;
    const int shift = static_cast<int>(place % 128 / 32 * 2);
    const float d = half(static_cast<uint16_t>(group[64] | group[65] << 8));
    int j = 0;
    for (; j + LANES <= count; j += LANES) store(out + j, splat(d) * (floats((bytes(q + j) >> shift) & 3) - splat(1.0f)));
    for (; j < count; j++) out[j] = d * static_cast<float>((q[j] >> shift & 3) - 1);
    i += count;
    out += count;
  }
}

}  // namespace lowbit::LOWBIT_BODY
