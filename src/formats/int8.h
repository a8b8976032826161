// int8: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

inline void decodeInt8(const Packed& w, int64_t row, int64_t from, int64_t n, float* out) { decodeInteger<8>(w, row, from, n, out); }

}  // namespace lowbit::LOWBIT_BODY
