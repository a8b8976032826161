// Products of whole numbers, on top of simd.h. A vector of codes, codes8v, has
// LANES lanes of 32 bits; a lane holds four codes of one row of W, for four
// neighbours of a row of x. Activations are signed bytes in −127 … 127, codes
// unsigned bytes; every sum is exact.
#pragma once
#include "simd.h"

#if !defined(LOWBIT_AVX512) && !defined(LOWBIT_AVX2) && !defined(LOWBIT_WASM) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define LOWBIT_NEON_DOT
#endif

namespace lowbit::LOWBIT_BODY {

// Sixteen bytes, the levels that codes of four bits stand for.
struct LevelTable {
  alignas(16) uint8_t bytes[16];
};

#if defined(LOWBIT_AVX512)

struct codes8v { __m512i v; };
LOWBIT_INLINE codes8v loadCodes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
LOWBIT_INLINE void storeCodes(uint8_t* p, codes8v a) { _mm512_storeu_si512(p, a.v); }
LOWBIT_INLINE codes8v operator&(codes8v a, uint8_t b) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(b)))}; }
LOWBIT_INLINE codes8v operator|(codes8v a, codes8v b) { return {_mm512_or_si512(a.v, b.v)}; }
// Bits that leave one byte enter its neighbour: mask them.
template <int N> LOWBIT_INLINE codes8v right(codes8v a) { return {_mm512_srli_epi16(a.v, N)}; }
template <int N> LOWBIT_INLINE codes8v left(codes8v a) { return {_mm512_slli_epi16(a.v, N)}; }
LOWBIT_INLINE codes8v lookUp(const LevelTable& t, codes8v a) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(t.bytes))), a.v)};
}
// Four neighbours of a row of x, the same for every lane.
struct quad { __m512i v; };
LOWBIT_INLINE quad loadQuad(const int8_t* p) { int32_t x; __builtin_memcpy(&x, p, 4); return {_mm512_set1_epi32(x)}; }
// sum + the product of each lane's four codes with x; dot7 for codes up to 127, dot8 for all.
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) {
#if defined(__GNUC__) && !defined(__clang__)
  // GCC 12 copies the sums of a tile to and from memory around the intrinsic.
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(x.v));
  return sum;
#else
  return {_mm512_dpbusd_epi32(sum.v, a.v, x.v)};
#endif
}
LOWBIT_INLINE i32v dot7(i32v sum, codes8v a, quad x) { return dot8(sum, a, x); }

LOWBIT_INLINE i32v splatInt(int32_t x) { return {_mm512_set1_epi32(x)}; }
LOWBIT_INLINE i32v operator+(i32v a, i32v b) { return {_mm512_add_epi32(a.v, b.v)}; }
LOWBIT_INLINE i32v operator*(i32v a, i32v b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
LOWBIT_INLINE i32v signedBytes(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
// Two 16-bit numbers for each lane, from pairs of bytes; and sum + a[0]·b[0] + a[1]·b[1] of each lane, b the same for all.
LOWBIT_INLINE i32v bytePairs(const uint8_t* p) { return {_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
LOWBIT_INLINE i32v dotPairs(i32v sum, i32v a, const int16_t* b) {
  int32_t x;
  __builtin_memcpy(&x, b, 4);
#if defined(__GNUC__) && !defined(__clang__)
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(_mm512_set1_epi32(x)));
  return sum;
#else
  return {_mm512_dpwssd_epi32(sum.v, a.v, _mm512_set1_epi32(x))};
#endif
}
// LANES floats, rounded to whole numbers, as signed bytes; they fit.
LOWBIT_INLINE void storeRounded(int8_t* p, f32v a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v))); }
LOWBIT_INLINE void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

#elif defined(LOWBIT_AVX2)

struct codes8v { __m256i v; };
LOWBIT_INLINE codes8v loadCodes(const uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
LOWBIT_INLINE void storeCodes(uint8_t* p, codes8v a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
LOWBIT_INLINE codes8v operator&(codes8v a, uint8_t b) { return {_mm256_and_si256(a.v, _mm256_set1_epi8(static_cast<char>(b)))}; }
LOWBIT_INLINE codes8v operator|(codes8v a, codes8v b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int N> LOWBIT_INLINE codes8v right(codes8v a) { return {_mm256_srli_epi16(a.v, N)}; }
template <int N> LOWBIT_INLINE codes8v left(codes8v a) { return {_mm256_slli_epi16(a.v, N)}; }
LOWBIT_INLINE codes8v lookUp(const LevelTable& t, codes8v a) {
  return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(t.bytes))), a.v)};
}
struct quad { __m256i v; };
LOWBIT_INLINE quad loadQuad(const int8_t* p) { int32_t x; __builtin_memcpy(&x, p, 4); return {_mm256_set1_epi32(x)}; }
// A sum of two products is at most 2·127·127 and fits into 16 bits.
LOWBIT_INLINE i32v dot7(i32v sum, codes8v a, quad x) {
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(_mm256_maddubs_epi16(a.v, x.v), _mm256_set1_epi16(1)))};
}
// The highest bit for itself: 2·128·127 fits too.
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) { return dot7(dot7(sum, a & 0x7f, x), a & 0x80, x); }

LOWBIT_INLINE i32v splatInt(int32_t x) { return {_mm256_set1_epi32(x)}; }
LOWBIT_INLINE i32v operator+(i32v a, i32v b) { return {_mm256_add_epi32(a.v, b.v)}; }
LOWBIT_INLINE i32v operator*(i32v a, i32v b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
LOWBIT_INLINE i32v signedBytes(const int8_t* p) { return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))}; }
LOWBIT_INLINE i32v bytePairs(const uint8_t* p) { return {_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
LOWBIT_INLINE i32v dotPairs(i32v sum, i32v a, const int16_t* b) {
  int32_t x;
  __builtin_memcpy(&x, b, 4);
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a.v, _mm256_set1_epi32(x)))};
}
LOWBIT_INLINE void storeRounded(int8_t* p, f32v a) {
  const __m256i x = _mm256_cvtps_epi32(a.v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}
LOWBIT_INLINE void prefetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

#elif defined(LOWBIT_WASM)

struct codes8v { v128_t v; };
LOWBIT_INLINE codes8v loadCodes(const uint8_t* p) { return {wasm_v128_load(p)}; }
LOWBIT_INLINE void storeCodes(uint8_t* p, codes8v a) { wasm_v128_store(p, a.v); }
LOWBIT_INLINE codes8v operator&(codes8v a, uint8_t b) { return {wasm_v128_and(a.v, wasm_u8x16_splat(b))}; }
LOWBIT_INLINE codes8v operator|(codes8v a, codes8v b) { return {wasm_v128_or(a.v, b.v)}; }
template <int N> LOWBIT_INLINE codes8v right(codes8v a) { return {wasm_u16x8_shr(a.v, N)}; }
template <int N> LOWBIT_INLINE codes8v left(codes8v a) { return {wasm_i16x8_shl(a.v, N)}; }
LOWBIT_INLINE codes8v lookUp(const LevelTable& t, codes8v a) { return {wasm_i8x16_swizzle(wasm_v128_load(t.bytes), a.v)}; }
struct quad { v128_t v; };
LOWBIT_INLINE quad loadQuad(const int8_t* p) { return {wasm_v128_load32_splat(p)}; }
#ifdef __wasm_relaxed_simd__
// With 7 bits in the second operand every engine gives the same exact sum.
LOWBIT_INLINE i32v dot7(i32v sum, codes8v a, quad x) { return {wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x.v, a.v, sum.v)}; }
// The highest bit as twice 64.
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) {
  const codes8v high = right<1>(a) & 0x40;
  return dot7(dot7(dot7(sum, a & 0x7f, x), high, x), high, x);
}
#else
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) {
  const v128_t low = wasm_i32x4_dot_i16x8(wasm_u16x8_extend_low_u8x16(a.v), wasm_i16x8_extend_low_i8x16(x.v));
  const v128_t high = wasm_i32x4_dot_i16x8(wasm_u16x8_extend_high_u8x16(a.v), wasm_i16x8_extend_high_i8x16(x.v));
  const v128_t even = wasm_i32x4_shuffle(low, high, 0, 2, 4, 6), odd = wasm_i32x4_shuffle(low, high, 1, 3, 5, 7);
  return {wasm_i32x4_add(sum.v, wasm_i32x4_add(even, odd))};
}
LOWBIT_INLINE i32v dot7(i32v sum, codes8v a, quad x) { return dot8(sum, a, x); }
#endif

LOWBIT_INLINE i32v splatInt(int32_t x) { return {wasm_i32x4_splat(x)}; }
LOWBIT_INLINE i32v operator+(i32v a, i32v b) { return {wasm_i32x4_add(a.v, b.v)}; }
LOWBIT_INLINE i32v operator*(i32v a, i32v b) { return {wasm_i32x4_mul(a.v, b.v)}; }
LOWBIT_INLINE i32v signedBytes(const int8_t* p) { return {wasm_i32x4_extend_low_i16x8(wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p)))}; }
LOWBIT_INLINE i32v bytePairs(const uint8_t* p) { return {wasm_u16x8_load8x8(p)}; }
LOWBIT_INLINE i32v dotPairs(i32v sum, i32v a, const int16_t* b) {
  return {wasm_i32x4_add(sum.v, wasm_i32x4_dot_i16x8(a.v, wasm_v128_load32_splat(b)))};
}
LOWBIT_INLINE void storeRounded(int8_t* p, f32v a) {
  const v128_t x = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(a.v));
  const v128_t words = wasm_i16x8_narrow_i32x4(x, x);
  wasm_v128_store32_lane(p, wasm_i8x16_narrow_i16x8(words, words), 0);
}
LOWBIT_INLINE void prefetch(const uint8_t*) {}

#else

// Plain arrays of four lanes, which a compiler turns into what its target has; NEON's dot product by name.
#if defined(__GNUC__)
typedef uint8_t sixteenBytes __attribute__((vector_size(16)));
struct codes8v { sixteenBytes v; };
LOWBIT_INLINE codes8v loadCodes(const uint8_t* p) { codes8v r; __builtin_memcpy(&r.v, p, 16); return r; }
LOWBIT_INLINE void storeCodes(uint8_t* p, codes8v a) { __builtin_memcpy(p, &a.v, 16); }
LOWBIT_INLINE codes8v operator&(codes8v a, uint8_t b) { return {a.v & b}; }
LOWBIT_INLINE codes8v operator|(codes8v a, codes8v b) { return {a.v | b.v}; }
template <int N> LOWBIT_INLINE codes8v right(codes8v a) { return {a.v >> N}; }
template <int N> LOWBIT_INLINE codes8v left(codes8v a) { return {a.v << N}; }
#else
struct codes8v { uint8_t v[16]; };
#define LOWBIT_EACH(expression) codes8v r; for (int i = 0; i < 16; i++) r.v[i] = static_cast<uint8_t>(expression); return r
LOWBIT_INLINE codes8v loadCodes(const uint8_t* p) { codes8v r; __builtin_memcpy(r.v, p, 16); return r; }
LOWBIT_INLINE void storeCodes(uint8_t* p, codes8v a) { __builtin_memcpy(p, a.v, 16); }
LOWBIT_INLINE codes8v operator&(codes8v a, uint8_t b) { LOWBIT_EACH(a.v[i] & b); }
LOWBIT_INLINE codes8v operator|(codes8v a, codes8v b) { LOWBIT_EACH(a.v[i] | b.v[i]); }
template <int N> LOWBIT_INLINE codes8v right(codes8v a) { LOWBIT_EACH(a.v[i] >> N); }
template <int N> LOWBIT_INLINE codes8v left(codes8v a) { LOWBIT_EACH(a.v[i] << N); }
#undef LOWBIT_EACH
#endif
LOWBIT_INLINE codes8v lookUp(const LevelTable& t, codes8v a) {
  codes8v r;
  for (int i = 0; i < 16; i++) r.v[i] = t.bytes[a.v[i] & 15];
  return r;
}
struct quad { int8_t v[4]; };
LOWBIT_INLINE quad loadQuad(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
#if defined(LOWBIT_NEON_DOT)
LOWBIT_INLINE int8x16_t sixteen(quad x) { int32_t all; __builtin_memcpy(&all, x.v, 4); return vreinterpretq_s8_s32(vdupq_n_s32(all)); }
LOWBIT_INLINE i32v dot7(i32v sum, codes8v a, quad x) {
  return {reinterpret_cast<fourInts>(vdotq_s32(reinterpret_cast<int32x4_t>(sum.v), reinterpret_cast<int8x16_t>(a.v), sixteen(x)))};
}
// code = (code − 128) + 128, and −128 is a signed byte.
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) {
  const int8x16_t lower = reinterpret_cast<int8x16_t>(a.v ^ 128);
  const int32x4_t less = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), sixteen(x));
  const int32x4_t all = vdotq_s32(vsubq_s32(reinterpret_cast<int32x4_t>(sum.v), less), lower, sixteen(x));
  return {reinterpret_cast<fourInts>(all)};
}
#else
#if defined(__GNUC__)
typedef int16_t eightWords __attribute__((vector_size(16)));
// A product of a byte and a signed byte fits into 16 bits. Even and odd bytes, and again even and odd words, are parted by
// shifts, which a little-endian processor needs no shuffles for.
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) {
  int32_t all;
  __builtin_memcpy(&all, x.v, 4);
  const eightWords codes = reinterpret_cast<eightWords>(a.v), factors = reinterpret_cast<eightWords>(fourInts{all, all, all, all});
  const fourInts even = reinterpret_cast<fourInts>((codes & 255) * (factors << 8 >> 8));
  const fourInts odd = reinterpret_cast<fourInts>((codes >> 8 & 255) * (factors >> 8));
  return {sum.v + (even << 16 >> 16) + (even >> 16) + (odd << 16 >> 16) + (odd >> 16)};
}
#else
LOWBIT_INLINE i32v dot8(i32v sum, codes8v a, quad x) {
  for (int i = 0; i < 4; i++)
    sum.v[i] += a.v[4 * i] * x.v[0] + a.v[4 * i + 1] * x.v[1] + a.v[4 * i + 2] * x.v[2] + a.v[4 * i + 3] * x.v[3];
  return sum;
}
#endif
LOWBIT_INLINE i32v dot7(i32v sum, codes8v a, quad x) { return dot8(sum, a, x); }
#endif

#define LOWBIT_EACH(expression) i32v r; for (int i = 0; i < 4; i++) r.v[i] = expression; return r
LOWBIT_INLINE i32v splatInt(int32_t x) { LOWBIT_EACH(x); }
#if defined(__GNUC__)
LOWBIT_INLINE i32v operator+(i32v a, i32v b) { return {a.v + b.v}; }
LOWBIT_INLINE i32v operator*(i32v a, i32v b) { return {a.v * b.v}; }
#else
LOWBIT_INLINE i32v operator+(i32v a, i32v b) { LOWBIT_EACH(a.v[i] + b.v[i]); }
LOWBIT_INLINE i32v operator*(i32v a, i32v b) { LOWBIT_EACH(a.v[i] * b.v[i]); }
#endif
LOWBIT_INLINE i32v signedBytes(const int8_t* p) { LOWBIT_EACH(p[i]); }
LOWBIT_INLINE i32v bytePairs(const uint8_t* p) { LOWBIT_EACH(p[2 * i] | p[2 * i + 1] << 16); }
LOWBIT_INLINE i32v dotPairs(i32v sum, i32v a, const int16_t* b) { LOWBIT_EACH(sum.v[i] + (a.v[i] & 0xffff) * b[0] + (a.v[i] >> 16) * b[1]); }
#undef LOWBIT_EACH
LOWBIT_INLINE void storeRounded(int8_t* p, f32v a) {
  const f32v whole = round(a);
  for (int i = 0; i < 4; i++) p[i] = static_cast<int8_t>(whole.v[i]);
}
LOWBIT_INLINE void prefetch(const uint8_t* p) {
#if defined(__GNUC__)
  __builtin_prefetch(p);
#else
  static_cast<void>(p);
#endif
}

#endif

}  // namespace lowbit::LOWBIT_BODY
