// What a format of codes tells the kernels: one block of one row, its codes a
// byte each and its scales as numbers. Everything else (floats, embedding rows,
// panels for integer products) is written once over this.
//
// A format is a struct with the name of its stem:
//
//   static constexpr int BLOCK        weights of one unpack(); at most 256
//   static constexpr int GROUP        weights that share a sub-scale, divides BLOCK; 0: w.group weights share the scale
//   static constexpr int BITS         bits of a code
//   static constexpr int MIDDLE       level of code c is c − MIDDLE …
//   static constexpr const int8_t* LEVELS   … or LEVELS[c], sixteen of them, where it is not null
//   static constexpr bool SUBSCALES   whole-number sub-scales under the scale; false: they all count as 1
//   static constexpr bool OFFSETS     values have an offset of their own
//   static void unpack(const Packed& w, int64_t row, int64_t block, Unpacked& out)
//
// unpack() takes weights block·BLOCK … of a row, of the last block of a row
// only those that there are, and never reads outside the row's bytes.
#pragma once
#include "../kernels/abi.h"
#include "../kernels/simd.h"

namespace lowbit::LOWBIT_BODY {

// value = scale·sub[g]·level(code) + offset·subOffset[g] in float32: the products are exact, at most the sum rounds.
// Without SUBSCALES nobody reads sub and subOffset, without OFFSETS nobody reads offset and subOffset.
struct Unpacked {
  alignas(64) uint8_t codes[256 + LANES];  // room for the last vector that begins inside
  float scale, offset;
  alignas(16) int8_t sub[16];
  alignas(16) uint8_t subOffset[16];
};

// Formats without levels (16-bit floats, codebooks): static void decode(const Packed& w, int64_t row, int64_t from, int64_t n, float* out).
struct Floats {};

// A stem whose matrices may have offsets: which of two formats it is, part 2 says.
template <typename Without, typename With> struct Either {};

// A digit of five trits in a byte. The byte is a fraction of 256; multiplied by 3^digit, its next digit is what three
// times it carries over.
LOWBIT_INLINE uint8_t tritOf(uint8_t byte, int power) {
  const uint16_t fraction = static_cast<uint16_t>(byte * power & 255);
  return static_cast<uint8_t>(static_cast<uint16_t>(fraction * 3) >> 8);
}

constexpr bool isThere(const int8_t* levels) { return levels != nullptr; }
template <typename F> constexpr bool hasLevels = isThere(F::LEVELS);

// Weights first … last−1 of an unpacked block, as floats.
template <typename F> LOWBIT_INLINE void valuesOf(const Unpacked& u, int first, int last, float* out) {
  constexpr int SHARE = F::SUBSCALES ? F::GROUP : F::BLOCK;
  static_assert(SHARE % 16 == 0 && F::BLOCK % SHARE == 0 && F::BLOCK <= 256, "whole vectors share a scale");
  for (int i = first; i < last;) {
    const int g = i / SHARE;
    const int stop = (g + 1) * SHARE < last ? (g + 1) * SHARE : last;
    const f32v scale = splat(F::SUBSCALES ? u.scale * static_cast<float>(u.sub[g]) : u.scale);
    const f32v offset = splat(!F::OFFSETS ? 0.0f : F::SUBSCALES ? u.offset * static_cast<float>(u.subOffset[g]) : u.offset);
    for (; i < stop; i += LANES) {
      f32v level;
      if constexpr (hasLevels<F>) {
        float levels[LANES];
        for (int j = 0; j < LANES; j++) levels[j] = static_cast<float>(F::LEVELS[u.codes[i + j] & 15]);
        level = load(levels);
      } else {
        level = floats(bytes(u.codes + i)) - splat(static_cast<float>(F::MIDDLE));
      }
      f32v value = scale * level;
      if constexpr (F::OFFSETS) value = value + offset;
      const int rest = stop - i;
      if (rest >= LANES) store(out + (i - first), value);
      else store(out + (i - first), value, rest);
    }
    i = stop;
  }
}

// Weights from … from+n−1 of a row.
template <typename F> inline void decodeBlocks(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  Unpacked u;
  const int64_t end = from + n;
  for (int64_t at = from; at < end;) {
    const int64_t block = at / F::BLOCK, start = block * F::BLOCK;
    const int first = static_cast<int>(at - start), last = static_cast<int>(end - start < F::BLOCK ? end - start : F::BLOCK);
    F::unpack(w, row, block, u);
    valuesOf<F>(u, first, last, out);
    out += last - first;
    at += last - first;
  }
}

}  // namespace lowbit::LOWBIT_BODY
