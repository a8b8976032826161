// Trellis codes of any number of bits: see trellis.ts for the byte layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

// The value of a state of 12 bits before scaling.
LOWBIT_INLINE float trellisValue(uint32_t state) {
  const uint32_t x = state * 34038481u + 76625530u;
  const int sum = static_cast<int>(x & 255) + static_cast<int>(x >> 8 & 255) + static_cast<int>(x >> 16 & 255) + static_cast<int>(x >> 24);
  return static_cast<float>(sum - 510) * static_cast<float>(1 / 147.8005);
}

template <int BITS> struct Trellis : Floats {
  static constexpr int TILE = 16, STATE = 12, TILE_BYTES = TILE * TILE * BITS / 8, ROW_BYTES = TILE * BITS / 8;

  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const int64_t across = static_cast<int64_t>(w.cols) / TILE;
    const float scale = half(w.part<uint16_t>(1)[row]);
    const uint8_t* tiles = w.part<uint8_t>(0) + row / TILE * across * TILE_BYTES;
    const int line = static_cast<int>(row % TILE);
    for (const int64_t end = from + n; from < end;) {
      const int first = static_cast<int>(from % TILE);
      const int last = static_cast<int>(end - from + first < TILE ? end - from + first : TILE);
      float values[TILE];
      lineOf(tiles + from / TILE * TILE_BYTES, line, values);
      for (int i = first; i < last; i++) *out++ = scale * values[i];
      from += last - first;
    }
  }

 private:
  // The sixteen weights of a line of a tile: their bits, and the next ones, which the last of them share.
  static LOWBIT_INLINE void lineOf(const uint8_t* tile, int line, float* values) {
    uint64_t bits = 0;
    uint32_t after = 0;
    for (int i = 0; i < ROW_BYTES; i++) bits |= static_cast<uint64_t>(tile[line * ROW_BYTES + i]) << 8 * i;
    for (int i = 0; i < 2; i++) after |= static_cast<uint32_t>(tile[((line + 1) * ROW_BYTES + i) % TILE_BYTES]) << 8 * i;
    constexpr uint32_t MASK = (1u << STATE) - 1;
    for (int i = 0; i < TILE; i++) {
      const int at = i * BITS, there = TILE * BITS - at;  // bits of the line from `at` on
      uint64_t window = bits >> at;
      if (there < STATE) window |= static_cast<uint64_t>(after) << there;
      values[i] = trellisValue(static_cast<uint32_t>(window) & MASK);
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
