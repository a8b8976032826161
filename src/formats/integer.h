// Integer formats of all widths: see integer.ts for the layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

// Eight codes of B bits, a byte each: halves, quarters and eighths are moved apart.
template <int B> LOWBIT_INLINE uint64_t spreadEight(uint64_t x) {
  constexpr auto mask = [](int bits) { return bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1; };
  constexpr uint64_t TWO = mask(2 * B) | mask(2 * B) << 32, ONE = mask(B) * 0x0001000100010001u;
  if constexpr (B == 8) return x;
  x = (x & mask(4 * B)) | (x >> 4 * B & mask(4 * B)) << 32;
  x = (x & TWO) | (x >> 2 * B & TWO) << 16;
  return (x & ONE) | (x >> B & ONE) << 8;
}

// 32 codes of B bits from the 4·B bytes that hold them.
template <int B> LOWBIT_INLINE void spread(const uint8_t* p, uint8_t* codes) {
  // Words of eight bytes; the last begins as late as its end allows.
  constexpr int LAST = 4 * B < 8 ? 0 : 4 * B - 8;
  uint64_t words[4];
  for (int j = 0; j < 4; j++) {
    const int at = j * B < LAST ? j * B : LAST;
    uint64_t word = 0;
    __builtin_memcpy(&word, p + at, B < 2 ? 4 : 8);
    words[j] = spreadEight<B>(word >> 8 * (j * B - at));
  }
  __builtin_memcpy(codes, words, 32);
}

// Scale or offset of the group in which weight `at` of a row lies, one for each group of w.group weights.
LOWBIT_INLINE int64_t groupAt(const Packed& w, int64_t row, int64_t at) {
  const int64_t cols = static_cast<int64_t>(w.cols), group = static_cast<int64_t>(w.group);
  return group < cols ? row * (cols / group) + at / group : row;
}

template <int B, bool OFFSET> struct Integer {
  static constexpr int BLOCK = 32;
  static constexpr int GROUP = 0;
  static constexpr int BITS = B;
  static constexpr int MIDDLE = OFFSET ? 0 : 1 << (B - 1);
  static constexpr const int8_t* LEVELS = nullptr;
  static constexpr bool SUBSCALES = false;
  static constexpr bool OFFSETS = OFFSET;

  static LOWBIT_INLINE void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out) {
    const int64_t cols = static_cast<int64_t>(w.cols), at = block * BLOCK, left = cols - at;
    const uint8_t* p = w.part<uint8_t>(0) + row * ((cols * B + 7) / 8) + block * (4 * B);
    if (left >= BLOCK) {
      spread<B>(p, out.codes);
    } else {
      uint8_t rest[4 * B] = {};
      for (int64_t i = 0; i < (left * B + 7) / 8; i++) rest[i] = p[i];
      spread<B>(rest, out.codes);
    }
    const int64_t g = groupAt(w, row, at);
    out.scale = half(w.part<uint16_t>(1)[g]);
    if constexpr (OFFSET) out.offset = half(w.part<uint16_t>(2)[g]);
  }
};

}  // namespace lowbit::LOWBIT_BODY
