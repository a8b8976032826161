// What ggml's first block formats have in common: see ggml-legacy.ts.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

// 32 codes of 4 bits: code j is the low half of byte j, code 16+j its high half.
LOWBIT_INLINE void nibbles(const uint8_t* p, uint8_t* codes) {
  for (int j = 0; j < 16; j++) codes[j] = p[j] & 15;
  for (int j = 0; j < 16; j++) codes[16 + j] = p[j] >> 4;
}

// Adds the fifth bits of 32 codes, that of code j being bit j of four bytes.
LOWBIT_INLINE void fifthBits(const uint8_t* p, uint8_t* codes) {
  for (int b = 0; b < 4; b++) {
    // The byte eight times, of which byte i keeps bit i; adding 127 carries any bit to the top of its byte.
    const uint64_t kept = (p[b] * 0x0101010101010101u) & 0x8040201008040201u;
    const uint64_t bits = ((kept + 0x7f7f7f7f7f7f7f7fu) & 0x8080808080808080u) >> 3;
    uint64_t eight;
    __builtin_memcpy(&eight, codes + 8 * b, 8);
    eight |= bits;
    __builtin_memcpy(codes + 8 * b, &eight, 8);
  }
}

}  // namespace lowbit::LOWBIT_BODY
