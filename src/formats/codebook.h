// codebook: see codebook.ts for the byte layout.
//
//   parts  codes, scales as f32 (rows, groups) or none, book as f32 (entries, length), and a head
//
// `group` weights share a scale. Every code is that of an entry: codebook.ts has seen to it.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

struct Codebook : Floats {
  struct Head {
    int32_t bits, length, bytesPerRow, down;  // down: vectors run down a column, and rows of codes are as many fewer
    int32_t entries;
  };

  static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const Head& head = *w.part<Head>(3);
    const float* book = w.part<float>(2);
    if (head.down) {
      const uint8_t* codes = w.part<uint8_t>(0) + row / head.length * head.bytesPerRow;
      elements(codes, head, book + row % head.length, from, n, out);
    } else {
      const uint8_t* codes = w.part<uint8_t>(0) + row * head.bytesPerRow;
      switch (head.length) {
        case 1: vectors<1>(codes, head, book, from, n, out); break;
        case 2: vectors<2>(codes, head, book, from, n, out); break;
        case 4: vectors<4>(codes, head, book, from, n, out); break;
        case 8: vectors<8>(codes, head, book, from, n, out); break;
        default: vectors<0>(codes, head, book, from, n, out);
      }
    }
    if (w.parts[1]) scale(w, row, from, n, out);
  }

 private:
  // Codes taken out of their stream at a time.
  static constexpr int CODES = 64;

  // LENGTH 0: as the head says.
  template <int LENGTH>
  static LOWBIT_INLINE void vectors(const uint8_t* codes, const Head& head, const float* book, int64_t from, int64_t n, float* out) {
    const int length = LENGTH ? LENGTH : head.length;
    int64_t v = from / length;
    int skip = static_cast<int>(from - v * length);
    uint16_t taken[CODES];
    while (n > 0) {
      const int64_t left = (skip + n + length - 1) / length;
      const int count = static_cast<int>(left < CODES ? left : CODES);
      take(codes, head, v, count, taken);
      int i = 0;
      for (; i < count && (skip > 0 || n < length); i++) {  // a part of a vector
        const int rest = static_cast<int>(n < length - skip ? n : length - skip);
        const float* entry = book + static_cast<int64_t>(taken[i]) * length + skip;
        for (int j = 0; j < rest; j++) out[j] = entry[j];
        out += rest;
        n -= rest;
        skip = 0;
      }
      for (; i < count && n >= length; i++) {
        __builtin_memcpy(out, book + static_cast<int64_t>(taken[i]) * length, 4 * static_cast<size_t>(length));
        out += length;
        n -= length;
      }
      v += i;
    }
  }

  // One element of each column's vector.
  static LOWBIT_INLINE void elements(const uint8_t* codes, const Head& head, const float* element, int64_t from, int64_t n, float* out) {
    uint16_t taken[CODES];
    for (int64_t c = 0; c < n; c += CODES) {
      const int count = static_cast<int>(n - c < CODES ? n - c : CODES);
      take(codes, head, from + c, count, taken);
      for (int i = 0; i < count; i++) out[c + i] = element[static_cast<int64_t>(taken[i]) * head.length];
    }
  }

  // Codes v … v+count−1 of a row.
  static LOWBIT_INLINE void take(const uint8_t* codes, const Head& head, int64_t v, int count, uint16_t* out) {
    const int bits = head.bits;
    if (bits == 8) {
      for (int i = 0; i < count; i++) out[i] = codes[v + i];
      return;
    }
    if (bits == 4) {
      for (int i = 0; i < count; i++) out[i] = codes[(v + i) >> 1] >> (4 * ((v + i) & 1)) & 15;
      return;
    }
    if (bits == 16) {
      __builtin_memcpy(out, codes + 2 * v, 2 * static_cast<size_t>(count));
      return;
    }
    const uint32_t mask = (1u << bits) - 1;
    for (int i = 0; i < count; i++) {
      const int64_t first = (v + i) * bits, at = first >> 3;
      uint32_t window = codes[at];
      for (int64_t j = 1; j < 3 && at + j < head.bytesPerRow; j++) window |= static_cast<uint32_t>(codes[at + j]) << 8 * j;
      out[i] = static_cast<uint16_t>(window >> (first & 7) & mask);
    }
  }

  static LOWBIT_INLINE void scale(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
    const int64_t group = static_cast<int64_t>(w.group), groups = static_cast<int64_t>(w.cols) / group;
    const float* scales = w.part<float>(1) + row * groups;
    for (int64_t at = from, end = from + n; at < end;) {
      const int64_t g = at / group, stop = (g + 1) * group < end ? (g + 1) * group : end;
      float* p = out + (at - from);
      const int64_t count = stop - at;
      const f32v factor = splat(scales[g]);
      int64_t i = 0;
      for (; i + LANES <= count; i += LANES) store(p + i, load(p + i) * factor);
      for (; i < count; i++) p[i] *= scales[g];
      at = stop;
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY
