// What the K-quants of ggml share: see k-quant.ts.
#pragma once
#include "ggml-block.h"

namespace lowbit::LOWBIT_BODY {

// Scales and offsets of eight subgroups, six bits each, from 12 bytes (writeSixBits in k-quant-bytes.ts).
LOWBIT_INLINE void sixBits(const uint8_t* p, Unpacked& out) {
  for (int g = 0; g < 4; g++) {
    out.sub[g] = static_cast<int8_t>(p[g] & 63);
    out.subOffset[g] = static_cast<uint8_t>(p[g + 4] & 63);
    out.sub[g + 4] = static_cast<int8_t>((p[g + 8] & 15) | p[g] >> 6 << 4);
    out.subOffset[g + 4] = static_cast<uint8_t>(p[g + 8] >> 4 | p[g + 4] >> 6 << 4);
  }
}

}  // namespace lowbit::LOWBIT_BODY
