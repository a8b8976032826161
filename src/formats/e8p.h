// e8p: see e8p.ts for the byte layout.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

// Patterns, and their numbers by what digits (of base 3) they are.
struct E8PTable {
  uint8_t halves[256][8] = {};
  uint8_t odd[256] = {};
  uint8_t triples[29][3] = {};
  uint8_t numbers[6561] = {};

  constexpr E8PTable() {
    int count = 0;
    for (int n = 0; n < 6561; n++) {
      uint8_t p[8] = {};
      int norm = 0;
      for (int i = 0, rest = n; i < 8; i++, rest /= 3) {
        p[i] = static_cast<uint8_t>(1 + 2 * (rest % 3));
        norm += p[i] * p[i];
      }
      if (norm <= 40) add(count++, n, p);
    }
    for (int i = 0; i < 8; i++)
      for (int j = i + 1; j < 8; j++)
        for (int k = j + 1; k < 8; k++)
          if ((i + j + k) % 2 == 0) addTriple(count++, i, j, k);
    addTriple(count, 0, 1, 2);
  }

 private:
  constexpr void add(int number, int digits, const uint8_t* p) {
    int sum = 0;
    for (int i = 0; i < 8; i++) {
      halves[number][i] = p[i];
      sum += p[i];
    }
    odd[number] = static_cast<uint8_t>(sum / 2 & 1);
    numbers[digits] = static_cast<uint8_t>(number);
  }
  constexpr void addTriple(int number, int i, int j, int k) {
    uint8_t p[8] = {};
    int digits = 0;
    for (int at = 0, power = 1; at < 8; at++, power *= 3) {
      p[at] = at == i || at == j || at == k ? 1 : 3;
      digits += power * (p[at] / 2);
    }
    add(number, digits, p);
    triples[number - 227][0] = static_cast<uint8_t>(i);
    triples[number - 227][1] = static_cast<uint8_t>(j);
    triples[number - 227][2] = static_cast<uint8_t>(k);
  }
};

constexpr E8PTable e8pTable = E8PTable();

struct E8P : Floats {
  static constexpr int VECTOR = 8;

  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const float scale = half(w.part<uint16_t>(1)[row]);
    const uint16_t* codes = w.part<uint16_t>(0) + row * (static_cast<int64_t>(w.cols) / VECTOR);
    for (const int64_t end = from + n; from < end;) {
      const int first = static_cast<int>(from % VECTOR);
      const int last = static_cast<int>(end - from + first < VECTOR ? end - from + first : VECTOR);
      float values[VECTOR];
      point(codes[from / VECTOR], values);
      for (int i = first; i < last; i++) *out++ = scale * values[i];
      from += last - first;
    }
  }

  // The point of a code before scaling.
  static LOWBIT_INLINE void point(uint32_t code, float* values) {
    const uint32_t number = code & 255, low = code >> 8 & 127;
    uint32_t odd = low ^ low >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    const uint32_t minus = low | ((odd ^ e8pTable.odd[number]) & 1) << 7;
    const int shift = code >> 15 ? -1 : 1;
    // In quarters.
    for (int i = 0; i < VECTOR; i++) {
      const int quarters = 2 * e8pTable.halves[number][i], sign = -static_cast<int>(minus >> i & 1);
      values[i] = static_cast<float>((quarters ^ sign) - sign + shift) * 0.25f;
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
