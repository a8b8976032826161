// q4_1: see q4_1.ts for the byte layout.
#pragma once
#include "ggml-legacy.h"

namespace lowbit::LOWBIT_BODY {

struct Q4_1 {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 32;
  static constexpr int BITS = 4;
  static constexpr int MIDDLE = 0;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = true;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<32, 20>(w, row, block);
    out.scale = halfAt(p);
    out.offset = halfAt(p + 2);
    nibbles(p + 4, out.codes);
  }
};

}  // namespace lowbit::LOWBIT_BODY
