// binary: see binary.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

// Bits are the codes 0 and 1; that their levels are −1 and 1 is said by scale and offset: 2·scale·code − scale.
struct Binary {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 0;
  static constexpr int BITS = 1;
  static constexpr int MIDDLE = 0;
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = true;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    Integer<1, false>::unpack(w, row, block, out);
    out.offset = -out.scale;
    out.scale += out.scale;
  }
};

}  // namespace lowbit::LOWBIT_BODY
