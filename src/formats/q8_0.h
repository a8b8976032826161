// q8_0: see q8_0.ts for the byte layout.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

struct Q8_0 {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 32;
  static constexpr int BITS = 8;
  static constexpr int MIDDLE = 128;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<32, 34>(w, row, block);
    out.scale = halfAt(p);
    for (int j = 0; j < 32; j++) out.codes[j] = p[2 + j] ^ 0x80;  // q + 128
  }
};

}  // namespace lowbit::LOWBIT_BODY
