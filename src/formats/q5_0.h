// q5_0: see q5_0.ts for the byte layout.
#pragma once
#include "ggml-legacy.h"

namespace lowbit::LOWBIT_BODY {

struct Q5_0 {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 32;
  static constexpr int BITS = 5;
  static constexpr int MIDDLE = 16;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<32, 22>(w, row, block);
    out.scale = halfAt(p);
    nibbles(p + 6, out.codes);
    fifthBits(p + 2, out.codes);
  }
};

}  // namespace lowbit::LOWBIT_BODY
