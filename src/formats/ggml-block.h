// What all block formats of ggml have in common: see ggml-block.ts.
#pragma once
#include "unpacked.h"

namespace lowbit::LOWBIT_BODY {

// The fp16 at p, which may be at an odd address.
LOWBIT_INLINE float halfAt(const uint8_t* p) { return half(static_cast<uint16_t>(p[0] | p[1] << 8)); }

// Bytes of block `block` of a row, when a block of SIZE weights is BYTES long.
template <int SIZE, int BYTES> LOWBIT_INLINE const uint8_t* blockAt(const Packed& w, int64_t row, int64_t block) {
  return w.part<uint8_t>(0) + (row * (static_cast<int64_t>(w.cols) / SIZE) + block) * BYTES;
}

}  // namespace lowbit::LOWBIT_BODY
