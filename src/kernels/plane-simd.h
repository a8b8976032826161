// Bytes and 16-bit words of many rows at a time, for bit-planes.h, on top of
// int-simd.h: the bytes of a rowBytes are of as many rows of W.
#pragma once
#include "int-simd.h"

#if !defined(LOWBIT_AVX512) && !defined(LOWBIT_AVX2) && !defined(LOWBIT_WASM) && defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define LOWBIT_NEON_TABLES
#endif

namespace lowbit::LOWBIT_BODY {

constexpr int BYTES = 4 * LANES;  // of a vector

// words16v are words of half the bytes of a rowBytes; they wrap.
//
//   lowHalf, highHalf   bits 0 … 3 and 4 … 7 of each byte
//   look(table, a)      byte a of the sixteen of a table; every a is below 16
//   addBytes            bytes that do not overflow
//   countBits(a)        bits that are set in each byte
//   evens(a), odds(a)   bytes 0, 2, 4 … and 1, 3, 5 …, as words
//   signedWords(p)      LANES words of memory, as 32-bit numbers

#if defined(LOWBIT_AVX512)

using rowBytes = codes8v;
LOWBIT_INLINE rowBytes loadRows(const uint8_t* p) { return loadCodes(p); }
LOWBIT_INLINE rowBytes lowHalf(rowBytes a) { return a & 15; }
LOWBIT_INLINE rowBytes highHalf(rowBytes a) { return right<4>(a) & 15; }
struct words16v { __m512i v; };
LOWBIT_INLINE rowBytes look(const uint8_t* table, rowBytes a) {
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), a.v)};
}
LOWBIT_INLINE rowBytes addBytes(rowBytes a, rowBytes b) { return {_mm512_add_epi8(a.v, b.v)}; }
LOWBIT_INLINE rowBytes andByte(rowBytes a, const uint8_t* b) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(static_cast<char>(*b)))}; }
LOWBIT_INLINE rowBytes noBytes() { return {_mm512_setzero_si512()}; }
LOWBIT_INLINE words16v evens(rowBytes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(255))}; }
LOWBIT_INLINE words16v odds(rowBytes a) { return {_mm512_srli_epi16(a.v, 8)}; }
LOWBIT_INLINE words16v operator+(words16v a, words16v b) { return {_mm512_add_epi16(a.v, b.v)}; }
LOWBIT_INLINE words16v operator-(words16v a, words16v b) { return {_mm512_sub_epi16(a.v, b.v)}; }
template <int N> LOWBIT_INLINE words16v times2(words16v a) { return {_mm512_slli_epi16(a.v, N)}; }
LOWBIT_INLINE words16v splatWord(int16_t a) { return {_mm512_set1_epi16(a)}; }
LOWBIT_INLINE void storeWords(int16_t* p, words16v a) { _mm512_storeu_si512(p, a.v); }
LOWBIT_INLINE i32v signedWords(const int16_t* p) { return {_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }

#elif defined(LOWBIT_AVX2)

using rowBytes = codes8v;
LOWBIT_INLINE rowBytes loadRows(const uint8_t* p) { return loadCodes(p); }
LOWBIT_INLINE rowBytes lowHalf(rowBytes a) { return a & 15; }
LOWBIT_INLINE rowBytes highHalf(rowBytes a) { return right<4>(a) & 15; }
struct words16v { __m256i v; };
LOWBIT_INLINE rowBytes look(const uint8_t* table, rowBytes a) {
  return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table))), a.v)};
}
LOWBIT_INLINE rowBytes addBytes(rowBytes a, rowBytes b) { return {_mm256_add_epi8(a.v, b.v)}; }
LOWBIT_INLINE rowBytes andByte(rowBytes a, const uint8_t* b) { return {_mm256_and_si256(a.v, _mm256_set1_epi8(static_cast<char>(*b)))}; }
LOWBIT_INLINE rowBytes noBytes() { return {_mm256_setzero_si256()}; }
LOWBIT_INLINE words16v evens(rowBytes a) { return {_mm256_and_si256(a.v, _mm256_set1_epi16(255))}; }
LOWBIT_INLINE words16v odds(rowBytes a) { return {_mm256_srli_epi16(a.v, 8)}; }
LOWBIT_INLINE words16v operator+(words16v a, words16v b) { return {_mm256_add_epi16(a.v, b.v)}; }
LOWBIT_INLINE words16v operator-(words16v a, words16v b) { return {_mm256_sub_epi16(a.v, b.v)}; }
template <int N> LOWBIT_INLINE words16v times2(words16v a) { return {_mm256_slli_epi16(a.v, N)}; }
LOWBIT_INLINE words16v splatWord(int16_t a) { return {_mm256_set1_epi16(a)}; }
LOWBIT_INLINE void storeWords(int16_t* p, words16v a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
LOWBIT_INLINE i32v signedWords(const int16_t* p) { return {_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }

#elif defined(LOWBIT_WASM)

using rowBytes = codes8v;
LOWBIT_INLINE rowBytes loadRows(const uint8_t* p) { return loadCodes(p); }
LOWBIT_INLINE rowBytes lowHalf(rowBytes a) { return a & 15; }
LOWBIT_INLINE rowBytes highHalf(rowBytes a) { return {wasm_u8x16_shr(a.v, 4)}; }
struct words16v { v128_t v; };
LOWBIT_INLINE rowBytes look(const uint8_t* table, rowBytes a) {
#ifdef __wasm_relaxed_simd__
  return {wasm_i8x16_relaxed_swizzle(wasm_v128_load(table), a.v)};
#else
  return {wasm_i8x16_swizzle(wasm_v128_load(table), a.v)};
#endif
}
LOWBIT_INLINE rowBytes addBytes(rowBytes a, rowBytes b) { return {wasm_i8x16_add(a.v, b.v)}; }
LOWBIT_INLINE rowBytes andByte(rowBytes a, const uint8_t* b) { return {wasm_v128_and(a.v, wasm_v128_load8_splat(b))}; }
LOWBIT_INLINE rowBytes noBytes() { return {wasm_i8x16_splat(0)}; }
LOWBIT_INLINE rowBytes countBits(rowBytes a) { return {wasm_i8x16_popcnt(a.v)}; }
LOWBIT_INLINE words16v evens(rowBytes a) { return {wasm_v128_and(a.v, wasm_i16x8_splat(255))}; }
LOWBIT_INLINE words16v odds(rowBytes a) { return {wasm_u16x8_shr(a.v, 8)}; }
LOWBIT_INLINE words16v operator+(words16v a, words16v b) { return {wasm_i16x8_add(a.v, b.v)}; }
LOWBIT_INLINE words16v operator-(words16v a, words16v b) { return {wasm_i16x8_sub(a.v, b.v)}; }
template <int N> LOWBIT_INLINE words16v times2(words16v a) { return {wasm_i16x8_shl(a.v, N)}; }
LOWBIT_INLINE words16v splatWord(int16_t a) { return {wasm_i16x8_splat(a)}; }
LOWBIT_INLINE void storeWords(int16_t* p, words16v a) { wasm_v128_store(p, a.v); }
LOWBIT_INLINE i32v signedWords(const int16_t* p) { return {wasm_i32x4_load16x4(p)}; }

#elif defined(__GNUC__)

typedef uint8_t bytesOfRows __attribute__((vector_size(16)));
typedef uint16_t wordsOfRows __attribute__((vector_size(16)));
struct rowBytes { bytesOfRows v; };
struct words16v { wordsOfRows v; };
LOWBIT_INLINE rowBytes loadRows(const uint8_t* p) { rowBytes r; __builtin_memcpy(&r.v, p, 16); return r; }
LOWBIT_INLINE rowBytes lowHalf(rowBytes a) { return {a.v & 15}; }
LOWBIT_INLINE rowBytes highHalf(rowBytes a) { return {a.v >> 4}; }
#if defined(LOWBIT_NEON_TABLES)
LOWBIT_INLINE rowBytes look(const uint8_t* table, rowBytes a) {
  return {reinterpret_cast<bytesOfRows>(vqtbl1q_u8(vld1q_u8(table), reinterpret_cast<uint8x16_t>(a.v)))};
}
LOWBIT_INLINE rowBytes countBits(rowBytes a) { return {reinterpret_cast<bytesOfRows>(vcntq_u8(reinterpret_cast<uint8x16_t>(a.v)))}; }
#else
// Out of line: sixteen loads, a great many times.
LOWBIT_OUTLINE inline rowBytes look(const uint8_t* table, rowBytes a) {
  uint8_t bytes[16];
  __builtin_memcpy(bytes, &a.v, 16);
  for (int i = 0; i < 16; i++) bytes[i] = table[bytes[i]];
  return loadRows(bytes);
}
LOWBIT_INLINE rowBytes countBits(rowBytes a) {
  const bytesOfRows pairs = a.v - (a.v >> 1 & 0x55), fours = (pairs & 0x33) + (pairs >> 2 & 0x33);
  return {(fours + (fours >> 4)) & 15};
}
#endif
LOWBIT_INLINE rowBytes addBytes(rowBytes a, rowBytes b) { return {a.v + b.v}; }
LOWBIT_INLINE rowBytes andByte(rowBytes a, const uint8_t* b) { return {a.v & *b}; }
LOWBIT_INLINE rowBytes noBytes() { return {bytesOfRows{}}; }
LOWBIT_INLINE words16v evens(rowBytes a) { return {reinterpret_cast<wordsOfRows>(a.v) & 255}; }
LOWBIT_INLINE words16v odds(rowBytes a) { return {reinterpret_cast<wordsOfRows>(a.v) >> 8}; }
LOWBIT_INLINE words16v operator+(words16v a, words16v b) { return {a.v + b.v}; }
LOWBIT_INLINE words16v operator-(words16v a, words16v b) { return {a.v - b.v}; }
template <int N> LOWBIT_INLINE words16v times2(words16v a) { return {a.v << N}; }
LOWBIT_INLINE words16v splatWord(int16_t a) { return {wordsOfRows{} + static_cast<uint16_t>(a)}; }
LOWBIT_INLINE void storeWords(int16_t* p, words16v a) { __builtin_memcpy(p, &a.v, 16); }
LOWBIT_INLINE i32v signedWords(const int16_t* p) { i32v r; for (int i = 0; i < 4; i++) r.v[i] = p[i]; return r; }

#else

struct rowBytes { uint8_t v[16]; };
struct words16v { uint16_t v[8]; };
#define LOWBIT_EACH(type, count, expression) type r; for (int i = 0; i < count; i++) r.v[i] = expression; return r
inline rowBytes loadRows(const uint8_t* p) { LOWBIT_EACH(rowBytes, 16, p[i]); }
inline rowBytes lowHalf(rowBytes a) { LOWBIT_EACH(rowBytes, 16, static_cast<uint8_t>(a.v[i] & 15)); }
inline rowBytes highHalf(rowBytes a) { LOWBIT_EACH(rowBytes, 16, static_cast<uint8_t>(a.v[i] >> 4)); }
inline rowBytes look(const uint8_t* table, rowBytes a) { LOWBIT_EACH(rowBytes, 16, table[a.v[i]]); }
inline rowBytes countBits(rowBytes a) {
  for (int i = 0; i < 16; i++) {
    const int pairs = a.v[i] - (a.v[i] >> 1 & 0x55), fours = (pairs & 0x33) + (pairs >> 2 & 0x33);
    a.v[i] = static_cast<uint8_t>((fours + (fours >> 4)) & 15);
  }
  return a;
}
inline rowBytes addBytes(rowBytes a, rowBytes b) { LOWBIT_EACH(rowBytes, 16, static_cast<uint8_t>(a.v[i] + b.v[i])); }
inline rowBytes andByte(rowBytes a, const uint8_t* b) { LOWBIT_EACH(rowBytes, 16, static_cast<uint8_t>(a.v[i] & *b)); }
inline rowBytes noBytes() { return {}; }
inline words16v evens(rowBytes a) { LOWBIT_EACH(words16v, 8, a.v[2 * i]); }
inline words16v odds(rowBytes a) { LOWBIT_EACH(words16v, 8, a.v[2 * i + 1]); }
inline words16v operator+(words16v a, words16v b) { LOWBIT_EACH(words16v, 8, static_cast<uint16_t>(a.v[i] + b.v[i])); }
inline words16v operator-(words16v a, words16v b) { LOWBIT_EACH(words16v, 8, static_cast<uint16_t>(a.v[i] - b.v[i])); }
template <int N> inline words16v times2(words16v a) { LOWBIT_EACH(words16v, 8, static_cast<uint16_t>(a.v[i] << N)); }
inline words16v splatWord(int16_t a) { LOWBIT_EACH(words16v, 8, static_cast<uint16_t>(a)); }
inline void storeWords(int16_t* p, words16v a) { __builtin_memcpy(p, a.v, 16); }
inline i32v signedWords(const int16_t* p) { LOWBIT_EACH(i32v, 4, p[i]); }
#undef LOWBIT_EACH

#endif

#if defined(LOWBIT_AVX512) || defined(LOWBIT_AVX2)
// Bits of a half byte; processors with vpopcntb are not asked for.
alignas(16) constexpr uint8_t BIT_COUNTS[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
LOWBIT_INLINE rowBytes countBits(rowBytes a) { return addBytes(look(BIT_COUNTS, lowHalf(a)), look(BIT_COUNTS, highHalf(a))); }
#endif

}  // namespace lowbit::LOWBIT_BODY
