// Trellis codes of any number of bits: see trellis.ts for the byte layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

// The value of a state of 14 bits before scaling.
LOWBIT_INLINE float trellisValue(uint32_t state) {
  const uint32_t x = state * 34038481u + 76625530u;
  const int sum = static_cast<int>(x & 255) + static_cast<int>(x >> 8 & 255) + static_cast<int>(x >> 16 & 255) + static_cast<int>(x >> 24);
  return static_cast<float>(sum - 510) * static_cast<float>(1 / 147.8005);
}

template <int BITS> struct Trellis : Floats {
  static constexpr int STATE = 14, EIGHT = 8;
  static constexpr int CODES = (STATE + BITS - 1) / BITS;       // that a state has bits of
  static constexpr int PART = EIGHT / BITS;                     // of them in a byte
  static constexpr int PARTS = (CODES + PART - 1) / PART;       // bytes of a state

  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const int64_t rows = static_cast<int64_t>(w.rows), width = (static_cast<int64_t>(w.cols) * BITS + 7) / 8;
    const int64_t streams = rows < 512 ? 1 : rows / 256, each = (rows + streams - 1) / streams, length = each < 16 ? 16 : each;
    const int64_t t = row % length;
    const float scale = half(w.part<uint16_t>(1)[row]);
    const uint8_t* lines[CODES];
    for (int j = 0; j < CODES; j++) lines[j] = w.part<uint8_t>(0) + (row - t + (t + j) % length) * width;
    for (const int64_t end = from + n; from < end;) {
      const int first = static_cast<int>(from % EIGHT);
      const int last = static_cast<int>(end - from + first < EIGHT ? end - from + first : EIGHT);
      float values[EIGHT];
      eight(lines, from / EIGHT * BITS, width, values);
      for (int i = first; i < last; i++) *out++ = scale * values[i];
      from += last - first;
    }
  }

 private:
  // Eight columns, whose codes begin at byte `at` of each line of `width` bytes.
  static LOWBIT_INLINE void eight(const uint8_t* const* lines, int64_t at, int64_t width, float* values) {
    uint64_t parts[PARTS] = {};
    for (int j = 0; j < CODES; j++) {
      uint64_t bits = 0;
      if (at + BITS <= width) __builtin_memcpy(&bits, lines[j] + at, BITS);
      else __builtin_memcpy(&bits, lines[j] + at, static_cast<size_t>(width - at));
      parts[j / PART] |= spread(bits) << (j % PART * BITS);
    }
    for (int i = 0; i < EIGHT; i++) {
      uint32_t state = 0;
      for (int p = 0; p < PARTS; p++) state |= static_cast<uint32_t>(parts[p] >> 8 * i & 255) << (p * PART * BITS);
      values[i] = trellisValue(state & ((1u << STATE) - 1));
    }
  }

  // Eight codes side by side become the lowest bits of eight bytes.
  static LOWBIT_INLINE uint64_t spread(uint64_t bits) {
    constexpr uint64_t FOUR = (uint64_t{1} << 4 * BITS) - 1, TWO = (1 << 2 * BITS) - 1, ONE = (1 << BITS) - 1;
    bits = (bits | bits << (32 - 4 * BITS)) & FOUR * 0x0000000100000001u;
    bits = (bits | bits << (16 - 2 * BITS)) & TWO * 0x0001000100010001u;
    return (bits | bits << (8 - BITS)) & ONE * 0x0101010101010101u;
  }
};

}  // namespace lowbit::LOWBIT_BODY
