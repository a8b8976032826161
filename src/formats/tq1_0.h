// tq1_0: see tq1_0.ts for the byte layout.
#pragma once
#include "../kernels/abi.h"
#include "../kernels/simd.h"

namespace lowbit::LOWBIT_BODY {

// A byte is a fraction of 256; multiplied by 3^plane, its next digit is what three times it carries over.
inline void decodeTq1_0(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  constexpr int POWERS[5] = {1, 3, 9, 27, 81};
  const uint8_t* first = w.part<uint8_t>(0) + row * (static_cast<int64_t>(w.cols) / 256 * 54);
  for (int64_t i = from, end = from + n; i < end;) {
    // Planes of 32, then of 16, then of 4 weights: a run is the rest of a plane.
    const int place = static_cast<int>(i % 256);
    const int start = place < 160 ? 0 : place < 240 ? 160 : 240;
    const int width = place < 160 ? 32 : place < 240 ? 16 : 4;
    const int within = (place - start) % width, plane = (place - start) / width;
    const int64_t left = end - i;
    const int count = width - within < left ? width - within : static_cast<int>(left);
    const uint8_t* group = first + i / 256 * 54;
    const uint8_t* q = group + start / 5 + within;
    const int power = POWERS[plane];
    const float d = half(static_cast<uint16_t>(group[52] | group[53] << 8));
    int j = 0;
    for (; j + LANES <= count; j += LANES) store(out + j, splat(d) * (floats((bytes(q + j) * power & 255) * 3 >> 8) - splat(1.0f)));
    for (; j < count; j++) out[j] = d * static_cast<float>(((q[j] * power & 255) * 3 >> 8) - 1);
    i += count;
    out += count;
  }
}

}  // namespace lowbit::LOWBIT_BODY
