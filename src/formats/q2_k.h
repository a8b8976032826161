// q2_k: see q2_k.ts for the byte layout.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

struct Q2_K {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 16;
  static constexpr int BITS = 2;
  static constexpr int MIDDLE = 0;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = true;
  static constexpr bool OFFSETS = true;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 84>(w, row, block);
    for (int part = 0; part < 2; part++)
      for (int i = 0; i < 32; i++) {
        const uint8_t byte = p[16 + 32 * part + i];
        uint8_t* codes = out.codes + 128 * part + i;
        codes[0] = byte & 3;
        codes[32] = byte >> 2 & 3;
        codes[64] = byte >> 4 & 3;
        codes[96] = byte >> 6;
      }
    for (int g = 0; g < 16; g++) {
      out.sub[g] = static_cast<int8_t>(p[g] & 15);
      out.subOffset[g] = p[g] >> 4;
    }
    out.scale = halfAt(p + 80);
    out.offset = -halfAt(p + 82);
  }
};

}  // namespace lowbit::LOWBIT_BODY
