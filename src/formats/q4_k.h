// q4_k: see q4_k.ts for the byte layout.
#pragma once
#include "k-quant.h"

namespace lowbit::LOWBIT_BODY {

struct Q4_K {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 32;
  static constexpr int BITS = 4;
  static constexpr int MIDDLE = 0;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = true;
  static constexpr bool OFFSETS = true;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 144>(w, row, block);
    for (int part = 0; part < 4; part++)
      for (int i = 0; i < 32; i++) {
        out.codes[64 * part + i] = p[16 + 32 * part + i] & 15;
        out.codes[64 * part + 32 + i] = p[16 + 32 * part + i] >> 4;
      }
    sixBits(p + 4, out);
    out.scale = halfAt(p);
    out.offset = -halfAt(p + 2);
  }
};

}  // namespace lowbit::LOWBIT_BODY
