// e81b: see e81b.ts for the byte layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

struct E81BTable {
  int8_t halves[256][8] = {};

  constexpr E81BTable() {
    for (int signs = 0; signs < 128; signs++) {
      int minus = 0;
      for (int i = 0; i < 8; i++) {
        const int sign = i < 7 ? signs >> i & 1 : minus;
        minus ^= sign;
        halves[signs][i] = static_cast<int8_t>(sign ? -1 : 1);
      }
    }
    int code = 128;
    for (int i = 0; i < 8; i++)
      for (int j = i + 1; j < 8; j++)
        for (int signs = 0; signs < 4; signs++, code++) {
          halves[code][i] = signs & 1 ? -2 : 2;
          halves[code][j] = signs & 2 ? -2 : 2;
        }
    for (int i = 0; i < 15; i++) halves[241 + i][i % 8] = i < 8 ? 4 : -4;
  }
};

constexpr E81BTable e81bTable = E81BTable();

struct E81B : Floats {
  static constexpr int VECTOR = 8;

  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const float scale = half(w.part<uint16_t>(1)[row]);
    const uint8_t* codes = w.part<uint8_t>(0) + row * (static_cast<int64_t>(w.cols) / VECTOR);
    for (const int64_t end = from + n; from < end;) {
      const int first = static_cast<int>(from % VECTOR);
      const int last = static_cast<int>(end - from + first < VECTOR ? end - from + first : VECTOR);
      const int8_t* halves = e81bTable.halves[codes[from / VECTOR]];
      for (int i = first; i < last; i++) *out++ = scale * (static_cast<float>(halves[i]) * 0.5f);
      from += last - first;
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
