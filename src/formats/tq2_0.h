// tq2_0: see tq2_0.ts for the byte layout.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

struct TQ2_0 {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 256;
  static constexpr int BITS = 2;
  static constexpr int MIDDLE = 1;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 66>(w, row, block);
    for (int part = 0; part < 2; part++)
      for (int plane = 0; plane < 4; plane++)
        for (int i = 0; i < 32; i++) out.codes[128 * part + 32 * plane + i] = p[32 * part + i] >> 2 * plane & 3;
    out.scale = halfAt(p + 64);
  }
};

}  // namespace lowbit::LOWBIT_BODY
