// trits: see trits.ts for the byte layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

struct Trits {
  static constexpr int BLOCK = 256;
  static constexpr int GROUP = 0;
  static constexpr int BITS = 2;  // a digit, 0 … 2
  static constexpr int MIDDLE = 1;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = false;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    constexpr int POWERS[5] = {1, 3, 9, 27, 81};
    const int64_t cols = static_cast<int64_t>(w.cols), n = (cols + 4) / 5, first = block * BLOCK;
    const int64_t end = first + BLOCK < cols ? first + BLOCK : cols;
    const uint8_t* bytes = w.part<uint8_t>(0) + row * n;
    // Runs of weights that are the same digit of their bytes.
    for (int64_t at = first; at < end;) {
      const int64_t digit = at / n, stop = (digit + 1) * n < end ? (digit + 1) * n : end;
      const uint8_t* p = bytes + (at - digit * n);
      uint8_t* codes = out.codes + (at - first);
      for (int64_t i = 0; i < stop - at; i++) codes[i] = tritOf(p[i], POWERS[digit]);
      at = stop;
    }
    out.scale = half(w.part<uint16_t>(1)[row]);
  }
};

}  // namespace lowbit::LOWBIT_BODY
