// Rows at … at+tokens−1 of a cache: see cache-append.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {
namespace caches {

constexpr int64_t ROWS = 16;  // of one task

// The bits of the nearest 16-bit float, ties to even.
LOWBIT_INLINE uint16_t toHalf(float x) {
#if defined(LOWBIT_AVX512) || defined(LOWBIT_AVX2)
  return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT)));
#else
  union { float value; uint32_t bits; } f = {x};
  const uint32_t sign = f.bits >> 16 & 0x8000u;
  f.bits &= 0x7fffffffu;
  if (f.bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (f.bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // from 65,520 on
  if (f.bits < 0x38800000u) {
    f.value += 0.5f;  // whose neighbours are 2⁻²⁴ away, as those of halves below 2⁻¹⁴ are
    return static_cast<uint16_t>(sign | (f.bits - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((f.bits + 0xfffu + (f.bits >> 13 & 1) - (112u << 23)) >> 13));
#endif
}

inline void halveRow(const float* x, int64_t n, uint16_t* to) {
  int64_t i = 0;
#if defined(LOWBIT_AVX512)
  for (; i + LANES <= n; i += LANES)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(LOWBIT_AVX2)
  for (; i + LANES <= n; i += LANES)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#endif
  for (; i < n; i++) to[i] = toHalf(x[i]);
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
  return toHalf(scale < 65504.0f ? scale : 65504.0f);
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

inline void copyBytes(const void* from, void* to, int64_t bytes) { __builtin_memcpy(to, from, static_cast<size_t>(bytes)); }

}  // namespace caches

void cacheAppend(Arguments a) {
  const WeightView cache = a.weight(), rows = a.weight();
  const int64_t tokens = a.size(), dim = a.size(), at = a.size(), bits = a.size();
  if (tokens == 0) return;
  if (cache.floats) {
    caches::copyBytes(rows.floats, const_cast<float*>(cache.floats) + at * dim, 4 * tokens * dim);
    return;
  }
  const int64_t group = static_cast<int64_t>(cache.packed->group), groups = bits == 16 ? 0 : dim / group;
  const int64_t rowBytes = (dim * bits + 7) / 8;
  uint8_t* data = const_cast<uint8_t*>(cache.packed->part<uint8_t>(0)) + at * rowBytes;
  uint16_t* scales = const_cast<uint16_t*>(cache.packed->part<uint16_t>(1)) + at * groups;
  if (rows.packed) {
    caches::copyBytes(rows.packed->part<uint8_t>(0), data, tokens * rowBytes);
    if (groups > 0) caches::copyBytes(rows.packed->part<uint16_t>(1), scales, 2 * tokens * groups);
    return;
  }
  parallel((tokens + caches::ROWS - 1) / caches::ROWS, [=](int64_t task) {
    for (int64_t t = task * caches::ROWS; t < tokens && t < (task + 1) * caches::ROWS; t++) {
      const float* x = rows.floats + t * dim;
      if (bits == 16) caches::halveRow(x, dim, reinterpret_cast<uint16_t*>(data + t * rowBytes));
      else if (bits == 8) caches::integerRow<8>(x, dim, group, data + t * rowBytes, scales + t * groups);
      else caches::integerRow<4>(x, dim, group, data + t * rowBytes, scales + t * groups);
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
