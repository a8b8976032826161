// The k largest of a row, of equal ones the earlier: see top-k.ts.
#pragma once
#include <stdint.h>

namespace lowbit::LOWBIT_BODY {

// Keys in the order of the floats: −0 and 0 are equal.
inline uint32_t orderOf(float x) {
  union { float value; uint32_t bits; } number = {x + 0.0f};
  return number.bits & 0x80000000u ? ~number.bits : number.bits | 0x80000000u;
}

// The chosen ones are those above `least` and the first `ties` that are equal to it.
struct TopK {
  uint32_t least;
  int64_t ties;
};

// A row has fewer than 2³¹ keys; counted in 32 bits they fill the vectors.
inline int64_t countFrom(const uint32_t* keys, int64_t n, uint32_t least) {
  uint32_t count = 0;
  for (int64_t i = 0; i < n; i++) count += keys[i] >= least;
  return count;
}

// The k-th largest key, bit by bit: 32 passes over keys that lie in the nearest cache. 0 < k < n.
inline TopK topK(const uint32_t* keys, int64_t n, int64_t k) {
  uint32_t least = 0;
  for (int bit = 31; bit >= 0; bit--) {
    const uint32_t candidate = least | uint32_t{1} << bit;
    if (countFrom(keys, n, candidate) >= k) least = candidate;
  }
  return {least, least == 0xffffffffu ? k : k - countFrom(keys, n, least + 1)};
}

}  // namespace lowbit::LOWBIT_BODY
