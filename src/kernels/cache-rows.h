// Rows of a cache in 16, 8 or 4 bits, written by cache-append.cpp and read by attention: the bytes of the formats f16,
// int8 and int4 (../formats/integer.ts), a group of which may be a row.
#pragma once
#include "../formats/formats.h"
#include "abi.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY::caches {

inline void halveRow(const float* x, int64_t n, uint16_t* to) {
  int64_t i = 0;
#if defined(LOWBIT_AVX512)
  for (; i + LANES <= n; i += LANES)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(LOWBIT_AVX2)
  for (; i + LANES <= n; i += LANES)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < n; i++) to[i] = nearestHalf(x[i]);
}

// Bits of the scale of n values: 0x7e00, a NaN, where one of them is not finite.
inline uint16_t scaleOf(const float* x, int64_t n, float top) {
  f32v tops = splat(0), zeros = splat(0);
  for (int64_t i = 0; i < n; i += LANES) {
    const f32v values = n - i < LANES ? load(x + i, static_cast<int>(n - i)) : load(x + i);
    tops = max(abs(values), tops);
    zeros = fma(values, splat(0), zeros);
  }
  if (!(sum(zeros) == 0)) return 0x7e00;
  const float scale = largest(tops) / top;
  return nearestHalf(scale < 65504.0f ? scale : 65504.0f);
}

// One row as codes of B bits and a scale for each group.
template <int B> inline void integerRow(const float* x, int64_t cols, int64_t group, uint8_t* codes, uint16_t* scales) {
  constexpr float MIDDLE = 1 << (B - 1);
  for (int64_t from = 0; from < cols; from += group) {
    const uint16_t bits = scaleOf(x + from, group, MIDDLE - 1);
    *scales++ = bits;
    const bool some = bits > 0 && bits != 0x7e00;
    const f32v scale = splat(some ? half(bits) : 1.0f);
    for (int64_t i = from; i < from + group; i += LANES) {
      const int n = static_cast<int>(from + group - i < LANES ? from + group - i : LANES);
      f32v levels = splat(0);
      if (some) levels = round((n < LANES ? load(x + i, n) : load(x + i)) / scale);
      float lanes[LANES];
      store(lanes, max(min(levels, splat(MIDDLE - 1)), splat(-MIDDLE)) + splat(MIDDLE));
      for (int lane = 0; lane < n; lane++) {
        const int64_t at = i + lane;
        const uint8_t code = static_cast<uint8_t>(lanes[lane]);
        if constexpr (B == 8) codes[at] = code;
        else codes[at >> 1] = static_cast<uint8_t>(at & 1 ? codes[at >> 1] | code << 4 : code);
      }
    }
  }
}

// LANES codes of B bits as integers, from a byte on.
template <int B> LOWBIT_INLINE i32v codesAt(const uint8_t* p) {
  if constexpr (B == 8) {
    return bytes(p);
  } else {
#if defined(LOWBIT_AVX512) || defined(LOWBIT_AVX2)
    uint64_t word = 0;
    __builtin_memcpy(&word, p, LANES / 2);
    const __m128i x = _mm_cvtsi64_si128(static_cast<long long>(word)), low = _mm_set1_epi8(15);
    const __m128i codes = _mm_unpacklo_epi8(_mm_and_si128(x, low), _mm_and_si128(_mm_srli_epi16(x, 4), low));
#if defined(LOWBIT_AVX512)
    return {_mm512_cvtepu8_epi32(codes)};
#else
    return {_mm256_cvtepu8_epi32(codes)};
#endif
#elif defined(LOWBIT_WASM)
    // Each code is moved to the top of its lane, then to the bottom.
    const v128_t four = wasm_i32x4_splat(p[0] | p[1] << 8);
    return {wasm_u32x4_shr(wasm_i32x4_mul(four, wasm_i32x4_make(1 << 28, 1 << 24, 1 << 20, 1 << 16)), 28)};
#else
    const uint8_t four[4] = {static_cast<uint8_t>(p[0] & 15), static_cast<uint8_t>(p[0] >> 4), static_cast<uint8_t>(p[1] & 15),
                             static_cast<uint8_t>(p[1] >> 4)};
    return bytes(four);
#endif
  }
}

// A cache as a kernel gets it.
struct Stored {
  const uint8_t* data;
  const uint16_t* scales;
  int64_t rowBytes, group, groups;
  int bits;

  Stored() = default;
  explicit Stored(const Packed& cache) {
    const int64_t cols = static_cast<int64_t>(cache.cols);
    const int format = static_cast<int>(cache.format);
    bits = format == format::number_f16 ? 16 : format == format::number_int8 ? 8 : 4;
    data = cache.part<uint8_t>(0);
    scales = cache.part<uint16_t>(1);
    rowBytes = (cols * bits + 7) / 8;
    group = bits == 16 ? cols : static_cast<int64_t>(cache.group);
    groups = group ? cols / group : 0;
  }

  // into (n) = values from … from+n−1 of a row.
  void decode(int64_t row, int64_t from, int64_t n, float* into) const {
    if (bits == 16) decodeHalves(row, from, n, into);
    else if (bits == 8) decodeIntegers<8>(row, from, n, into);
    else decodeIntegers<4>(row, from, n, into);
  }

 private:
  void decodeHalves(int64_t row, int64_t from, int64_t n, float* into) const {
    const uint16_t* x = reinterpret_cast<const uint16_t*>(data + row * rowBytes) + from;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(into + i, halves(x + i));
    for (; i < n; i++) into[i] = half(x[i]);
  }

  template <int B> void decodeIntegers(int64_t row, int64_t from, int64_t n, float* into) const {
    constexpr float MIDDLE = 1 << (B - 1);
    const uint8_t* codes = data + row * rowBytes;
    const uint16_t* scale = scales + row * groups;
    const int64_t end = from + n;
    into -= from;
    int64_t i = from, stop = 0;
    if (from >= group) {
      scale += from / group;
      stop = from / group * group;
    }
    while (i < end) {
      stop += group;
      const int64_t last = stop < end ? stop : end;
      const float factor = half(*scale++);
      if (i % 2 == 0)
        for (; i + LANES <= last; i += LANES) store(into + i, splat(factor) * (floats(codesAt<B>(codes + i * B / 8)) - splat(MIDDLE)));
      for (; i < last; i++) {
        const int code = B == 8 ? codes[i] : codes[i >> 1] >> (i & 1) * 4 & 15;
        into[i] = factor * (static_cast<float>(code) - MIDDLE);
      }
    }
  }
};

}  // namespace lowbit::LOWBIT_BODY::caches
