// NormalFloat of all widths: see normal-float.ts for the layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

constexpr float NF4_LEVELS[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
    -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
constexpr float NF3_LEVELS[8] = {-1.0f, -0.47862908244132996f, -0.2171417772769928f, 0.0f, 0.16093014180660248f,
                                 0.3379151225090027f, 0.5626168847084045f, 1.0f};
constexpr float NF2_LEVELS[4] = {-1.0f, 0.0f, 0.3379151225090027f, 1.0f};

// Levels that are no whole numbers: weights are made at once, without bytes in between.
template <int B> struct NormalFloat : Floats {
  static constexpr const float* LEVELS = B == 4 ? NF4_LEVELS : B == 3 ? NF3_LEVELS : NF2_LEVELS;

  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const int64_t cols = static_cast<int64_t>(w.cols), bytesPerRow = (cols * B + 7) / 8, end = from + n;
    const uint8_t* bytes = w.part<uint8_t>(0) + row * bytesPerRow;
    const uint16_t* scales = w.part<uint16_t>(1);
    uint8_t codes[32];
    for (int64_t at = from; at < end;) {
      const int64_t block = at / 32, start = block * 32, stop = start + 32 < end ? start + 32 : end;
      const uint8_t* p = bytes + block * (4 * B);
      if (cols - start >= 32) {
        spread<B>(p, codes);
      } else {
        uint8_t rest[4 * B] = {};
        for (int64_t i = 0; i < bytesPerRow - block * (4 * B); i++) rest[i] = p[i];
        spread<B>(rest, codes);
      }
      const float scale = half(scales[groupAt(w, row, start)]);
      for (; at < stop; at++) *out++ = scale * LEVELS[codes[at - start]];
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
