// tq1_0: see tq1_0.ts for the byte layout.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

struct TQ1_0 {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 256;
  static constexpr int BITS = 2;  // a digit, 0 … 2
  static constexpr int MIDDLE = 1;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const uint8_t* p = blockAt<BLOCK, 54>(w, row, block);
    digits<32>(p, out.codes);
    digits<16>(p + 32, out.codes + 160);
    constexpr int POWERS[4] = {1, 3, 9, 27};
    for (int plane = 0; plane < 4; plane++)
      for (int i = 0; i < 4; i++) out.codes[240 + 4 * plane + i] = tritOf(p[48 + i], POWERS[plane]);
    out.scale = halfAt(p + 52);
  }

 private:
  template <int WIDTH> static LOWBIT_INLINE void digits(const uint8_t* p, uint8_t* codes) {
    constexpr int POWERS[5] = {1, 3, 9, 27, 81};
    for (int plane = 0; plane < 5; plane++)
      for (int i = 0; i < WIDTH; i++) codes[WIDTH * plane + i] = tritOf(p[i], POWERS[plane]);
  }
};

}  // namespace lowbit::LOWBIT_BODY
