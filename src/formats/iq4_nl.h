// iq4_nl: see iq4_nl.ts for the byte layout.
#pragma once
#include "ggml-legacy.h"

namespace lowbit::LOWBIT_BODY {

// Not a member: GCC's sanitizers take the address of an inline variable for one that may be null.
constexpr int8_t IQ4_LEVELS[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 32;
  static constexpr int BITS = 4;
  static constexpr int MIDDLE = 0;
  static constexpr const int8_t* LEVELS = IQ4_LEVELS;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<32, 18>(w, row, block);
    out.scale = halfAt(p);
    nibbles(p + 2, out.codes);
  }
};

}  // namespace lowbit::LOWBIT_BODY
