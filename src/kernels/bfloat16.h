// bf16 in float32: the nearest one, ties to even, and vectors of them in memory.
// Numbers are finite; what is beyond the largest bf16 becomes infinity.
#pragma once
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

LOWBIT_INLINE float roundBf16(float x) {
  union { float value; uint32_t bits; } f = {x};
  f.bits = (f.bits + 0x7fffu + (f.bits >> 16 & 1)) & 0xffff0000u;
  return f.value;
}

#if defined(LOWBIT_AVX512)
LOWBIT_INLINE f32v roundBf16(f32v a) {
  const __m512i bits = _mm512_castps_si512(a.v), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return {_mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(static_cast<int>(0xffff0000))))};
}
LOWBIT_INLINE void storeBf16(uint16_t* p, f32v a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(a.v), 16)));
}
#elif defined(LOWBIT_AVX2)
LOWBIT_INLINE f32v roundBf16(f32v a) {
  const __m256i bits = _mm256_castps_si256(a.v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return {_mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xffff0000))))};
}
LOWBIT_INLINE void storeBf16(uint16_t* p, f32v a) {
  const __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(a.v), 16);
  const __m128i low = _mm256_castsi256_si128(bits), high = _mm256_extracti128_si256(bits, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(low, high));
}
#elif defined(LOWBIT_WASM)
LOWBIT_INLINE f32v roundBf16(f32v a) {
  const v128_t odd = wasm_v128_and(wasm_u32x4_shr(a.v, 16), wasm_i32x4_splat(1));
  const v128_t up = wasm_i32x4_add(wasm_i32x4_add(a.v, wasm_i32x4_splat(0x7fff)), odd);
  return {wasm_v128_and(up, wasm_i32x4_splat(static_cast<int>(0xffff0000)))};
}
LOWBIT_INLINE void storeBf16(uint16_t* p, f32v a) {
  const v128_t bits = wasm_u32x4_shr(a.v, 16);
  const v128_t narrow = wasm_u16x8_narrow_i32x4(bits, bits);
  wasm_v128_store64_lane(p, narrow, 0);
}
#else
LOWBIT_INLINE f32v roundBf16(f32v a) {
  float t[LANES];
  store(t, a);
  for (int i = 0; i < LANES; i++) t[i] = roundBf16(t[i]);
  return load(t);
}
LOWBIT_INLINE void storeBf16(uint16_t* p, f32v a) {
  float t[LANES];
  store(t, a);
  for (int i = 0; i < LANES; i++) {
    union { float value; uint32_t bits; } f = {t[i]};
    p[i] = static_cast<uint16_t>(f.bits >> 16);
  }
}
#endif

LOWBIT_INLINE f32v loadBf16(const uint16_t* p) { return asFloats(words(p) << 16); }

}  // namespace lowbit::LOWBIT_BODY
