// q5_k: see q5_k.ts for the byte layout.
#pragma once
#include "k-quant.h"

namespace lowbit::LOWBIT_BODY {

struct Q5_K {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 32;
  static constexpr int BITS = 5;
  static constexpr int MIDDLE = 0;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = true;
  static constexpr bool OFFSETS = true;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 176>(w, row, block);
    for (int part = 0; part < 4; part++)
      for (int i = 0; i < 32; i++) {
        const uint8_t four = p[48 + 32 * part + i], fifth = p[16 + i] >> 2 * part;
        out.codes[64 * part + i] = static_cast<uint8_t>((four & 15) | (fifth & 1) << 4);
        out.codes[64 * part + 32 + i] = static_cast<uint8_t>(four >> 4 | (fifth & 2) << 3);
      }
    sixBits(p + 4, out);
    out.scale = halfAt(p);
    out.offset = -halfAt(p + 2);
  }
};

}  // namespace lowbit::LOWBIT_BODY
