// q6_k: see q6_k.ts for the byte layout.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

struct Q6_K {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 16;
  static constexpr int BITS = 6;
  static constexpr int MIDDLE = 32;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = true;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 210>(w, row, block);
    for (int part = 0; part < 2; part++)
      for (int i = 0; i < 32; i++) {
        const uint8_t a = p[64 * part + i], b = p[64 * part + 32 + i], two = p[128 + 32 * part + i];
        uint8_t* codes = out.codes + 128 * part + i;
        codes[0] = static_cast<uint8_t>((a & 15) | (two & 3) << 4);
        codes[32] = static_cast<uint8_t>((b & 15) | (two >> 2 & 3) << 4);
        codes[64] = static_cast<uint8_t>(a >> 4 | (two >> 4 & 3) << 4);
        codes[96] = static_cast<uint8_t>(b >> 4 | two >> 6 << 4);
      }
    for (int g = 0; g < 16; g++) out.sub[g] = static_cast<int8_t>(p[192 + g]);
    out.scale = halfAt(p + 208);
  }
};

}  // namespace lowbit::LOWBIT_BODY
