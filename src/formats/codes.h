// Formats that only TypeScript knows: src/backends/heap.ts writes their levels
// as bytes, and scales as floats.
//
//   part 0   u8  (rows, cols)    level + 128
//   part 1   f32 (rows, groups)  scales
//   part 2   f32 (rows, groups)  offsets, where there are any
//
// A group is w.group weights, a multiple of 32, or the whole row.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

template <bool OFFSET> struct LevelBytes {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 0;
  static constexpr int BITS = 8;
  static constexpr int MIDDLE = 128;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = OFFSET;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const int64_t cols = static_cast<int64_t>(w.cols), at = block * BLOCK, left = cols - at;
    const uint8_t* p = w.part<uint8_t>(0) + row * cols + at;
    if (left >= BLOCK) {
      __builtin_memcpy(out.codes, p, BLOCK);
    } else {
      for (int i = 0; i < BLOCK; i++) out.codes[i] = i < left ? p[i] : 0;
    }
    const int64_t g = groupAt(w, row, at);
    out.scale = w.part<float>(1)[g];
    if constexpr (OFFSET) out.offset = w.part<float>(2)[g];
  }
};

using Codes = Either<LevelBytes<false>, LevelBytes<true>>;

}  // namespace lowbit::LOWBIT_BODY
