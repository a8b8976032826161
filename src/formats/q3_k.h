// q3_k: see q3_k.ts for the byte layout.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

struct Q3_K {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 16;
  static constexpr int BITS = 3;
  static constexpr int MIDDLE = 4;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = true;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 110>(w, row, block);
    for (int part = 0; part < 2; part++)
      for (int i = 0; i < 32; i++) {
        const uint8_t two = p[32 + 32 * part + i], third = p[i] >> 4 * part;
        uint8_t* codes = out.codes + 128 * part + i;
        codes[0] = static_cast<uint8_t>((two & 3) | (third & 1) << 2);
        codes[32] = static_cast<uint8_t>((two >> 2 & 3) | (third & 2) << 1);
        codes[64] = static_cast<uint8_t>((two >> 4 & 3) | (third & 4));
        codes[96] = static_cast<uint8_t>(two >> 6 | (third & 8) >> 1);
      }
    const uint8_t* s = p + 96;
    for (int g = 0; g < 4; g++) {
      const int a = s[g], b = s[g + 4], high = s[g + 8];
      out.sub[g] = static_cast<int8_t>((a & 15) + ((high & 3) << 4) - 32);
      out.sub[g + 4] = static_cast<int8_t>((b & 15) + ((high >> 2 & 3) << 4) - 32);
      out.sub[g + 8] = static_cast<int8_t>((a >> 4) + ((high >> 4 & 3) << 4) - 32);
      out.sub[g + 12] = static_cast<int8_t>((b >> 4) + (high >> 6 << 4) - 32);
    }
    out.scale = halfAt(p + 108);
  }
};

}  // namespace lowbit::LOWBIT_BODY
