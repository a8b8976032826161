// Integer formats of all widths: see integer.ts for the layout. A decoder gives
// exactly what `value` does: scale·(code − 2^(B−1)), or f32(scale·code) + offset.
#pragma once
#include "../kernels/abi.h"
#include "../kernels/simd.h"

namespace lowbit::LOWBIT_BODY {

// Code `at` of a row: bits at·B … at·B+B−1 of a little-endian stream. Reads only bytes that hold them.
template <int B> LOWBIT_INLINE int code(const uint8_t* row, int64_t at) {
  const int64_t bit = at * B;
  const uint8_t* p = row + (bit >> 3);
  const int shift = static_cast<int>(bit & 7);
  const int word = p[0] | (shift + B > 8 ? p[1] << 8 : 0);
  return (word >> shift) & ((1 << B) - 1);
}

// For each lane, the two bytes among those of LANES codes in which its code lies, and its first bit there.
template <int B> struct Spread {
  alignas(64) uint8_t order[4 * LANES];
  alignas(64) uint32_t shift[LANES];
  constexpr Spread() : order(), shift() {
    for (int i = 0; i < LANES; i++) {
      order[4 * i] = static_cast<uint8_t>(i * B / 8);
      order[4 * i + 1] = static_cast<uint8_t>(i * B / 8 + 1);
      order[4 * i + 2] = order[4 * i + 3] = 0x80;  // a zero
      shift[i] = i * B % 8;
    }
  }
};

// LANES codes from `at` on, which is a multiple of LANES. Reads only bytes that hold them.
template <int B> LOWBIT_INLINE i32v codes(const uint8_t* row, int64_t at) {
  const uint8_t* p = row + (at * B >> 3);
  if constexpr (B == 8) {
    return bytes(p);
  } else {
#if defined(LOWBIT_AVX512)
    static constexpr Spread<B> spread;
    const __m512i stream = _mm512_broadcast_i32x4(_mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << 2 * B) - 1), p));
    const __m512i pairs = _mm512_shuffle_epi8(stream, _mm512_load_si512(spread.order));
    return i32v{_mm512_srlv_epi32(pairs, _mm512_load_si512(spread.shift))} & ((1 << B) - 1);
#elif defined(LOWBIT_AVX2)
    static constexpr Spread<B> spread;
    uint64_t word = 0;
    for (int i = 0; i < B; i++) word |= static_cast<uint64_t>(p[i]) << 8 * i;
    const __m256i stream = _mm256_set1_epi64x(static_cast<long long>(word));
    const __m256i pairs = _mm256_shuffle_epi8(stream, _mm256_load_si256(reinterpret_cast<const __m256i*>(spread.order)));
    return i32v{_mm256_srlv_epi32(pairs, _mm256_load_si256(reinterpret_cast<const __m256i*>(spread.shift)))} & ((1 << B) - 1);
#else
    // Four codes are 4·B bits, in one word; three-bit codes may start in the middle of a byte.
    uint32_t word = 0;
    for (int i = 0; i < (B + 1) / 2; i++) word |= static_cast<uint32_t>(p[i]) << 8 * i;
    if constexpr (B == 3) word >>= at * B & 7;
#if defined(LOWBIT_WASM)
    const v128_t top = wasm_i32x4_make(1 << (32 - B), 1 << (32 - 2 * B), 1 << (32 - 3 * B), 1 << (32 - 4 * B));
    return {wasm_u32x4_shr(wasm_i32x4_mul(wasm_i32x4_splat(static_cast<int32_t>(word)), top), 32 - B)};
#else
    i32v r;
    for (int i = 0; i < 4; i++) r.v[i] = static_cast<int32_t>(word >> i * B & ((1u << B) - 1));
    return r;
#endif
#endif
  }
}

template <int B> inline void decodeInteger(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) {
  const int64_t cols = static_cast<int64_t>(w.cols), group = static_cast<int64_t>(w.group), groups = group ? cols / group : 0;
  const uint8_t* stream = w.part<uint8_t>(0) + row * ((cols * B + 7) / 8);
  const uint16_t* scales = w.part<uint16_t>(1) + row * groups;
  const uint16_t* offsets = w.part<uint16_t>(2);
  const bool symmetric = offsets == nullptr;
  if (!symmetric) offsets += row * groups;
  const float zero = symmetric ? static_cast<float>(1 << (B - 1)) : 0.0f;

  const int64_t end = from + n;
  out -= from;
  for (int64_t i = from; i < end;) {
    const int64_t g = i / group;
    const int64_t stop = (g + 1) * group < end ? (g + 1) * group : end;
    const float scale = half(scales[g]), offset = symmetric ? 0.0f : half(offsets[g]);
    const auto one = [&](int64_t at) {
      const float product = scale * (static_cast<float>(code<B>(stream, at)) - zero);
      out[at] = symmetric ? product : product + offset;
    };
    for (; i < stop && i % LANES; i++) one(i);
    if (symmetric) {
      for (; i + LANES <= stop; i += LANES) store(out + i, splat(scale) * (floats(codes<B>(stream, i)) - splat(zero)));
    } else {
      for (; i + LANES <= stop; i += LANES) store(out + i, splat(scale) * floats(codes<B>(stream, i)) + splat(offset));
    }
    for (; i < stop; i++) one(i);
  }
}

}  // namespace lowbit::LOWBIT_BODY
